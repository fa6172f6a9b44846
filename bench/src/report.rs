//! What was measured, as text for a terminal, Markdown for the documentation and JSON for programs.

use serde_json::{Value, json};

/// A promise and what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) target: f64,
    bound: Bound,
}

/// On which side of the target a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    AtMost,
    AtLeast,
}

impl Verdict {
    pub(crate) fn at_most(what: &str, measured: f64, target: f64) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            target,
            bound: Bound::AtMost,
        }
    }

    pub(crate) fn at_least(what: &str, measured: f64, target: f64) -> Self {
        Self {
            bound: Bound::AtLeast,
            ..Self::at_most(what, measured, target)
        }
    }

    pub(crate) fn met(&self) -> bool {
        match self.bound {
            Bound::AtMost => self.measured <= self.target,
            Bound::AtLeast => self.measured >= self.target,
        }
    }

    fn words(&self) -> String {
        let word = if self.met() { "met" } else { "MISSED" };
        let bound = match self.bound {
            Bound::AtMost => "at most",
            Bound::AtLeast => "at least",
        };
        format!(
            "{}: {} (target: {bound} {}) - {word}",
            self.what,
            short(self.measured),
            short(self.target)
        )
    }
}

/// A picture for the documentation.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// Its file's name without ending, `bench-<what>`.
    pub(crate) name: &'static str,
    /// For those who do not see it.
    pub(crate) alt: &'static str,
    pub(crate) svg: String,
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Stable, for JSON.
    pub(crate) name: &'static str,
    title: &'static str,
    columns: Vec<String>,
    /// How it was done, one paragraph.
    pub(crate) method: String,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) notes: Vec<String>,
    pub(crate) pictures: Vec<Picture>,
    pub(crate) data: Value,
}

impl Section {
    pub(crate) fn new(name: &'static str, title: &'static str, columns: &[&str]) -> Self {
        Self {
            name,
            title,
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            method: String::new(),
            rows: Vec::new(),
            verdicts: Vec::new(),
            notes: Vec::new(),
            pictures: Vec::new(),
            data: Value::Null,
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut out = format!(
            "{}\n{}\n",
            self.title,
            "=".repeat(self.title.chars().count())
        );
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|c| {
                self.lines()
                    .map(|r| r.get(c).map_or(0, |t| t.chars().count()))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in self.lines() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(at, (cell, width))| {
                    if at == 0 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                })
                .collect();
            out.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
        }
        for v in &self.verdicts {
            out.push_str(&format!("  -> {}\n", v.words()));
        }
        for n in &self.notes {
            out.push_str(&format!("  {n}\n"));
        }
        out
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.columns).chain(&self.rows)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.title, self.method);
        for (at, row) in self.lines().enumerate() {
            out.push_str(&format!("| {} |\n", row.join(" | ")));
            if at == 0 {
                let rest = "---:|".repeat(self.columns.len().saturating_sub(1));
                out.push_str(&format!("|---|{rest}\n"));
            }
        }
        out.push('\n');
        for v in &self.verdicts {
            out.push_str(&format!("* **{}**\n", v.words()));
        }
        for n in &self.notes {
            out.push_str(&format!("* {n}\n"));
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let verdicts: Vec<Value> =
            self.verdicts.iter().map(|v| json!({"what": v.what, "measured": v.measured, "target": v.target, "met": v.met()})).collect();
        json!({"name": self.name, "title": self.title, "data": self.data, "verdicts": verdicts})
    }
}

/// The page with one measurement replaced, or with it at its end if it had none. The rest of the page is written by people.
pub(crate) fn replace_measured(page: &str, name: &str, measured: &str) -> String {
    let (first, last) = (
        format!("<!-- measured: {name} -->"),
        format!("<!-- /measured: {name} -->"),
    );
    let block = format!("{first}\n\n{}\n\n{last}", measured.trim());
    match (page.find(&first), page.find(&last)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{block}{}", &page[..from], &page[to + last.len()..])
        }
        _ => format!("{}\n\n{block}\n", page.trim_end()),
    }
}

/// Milliseconds for people.
pub(crate) fn ms(value: f64) -> String {
    format!("{value:.2}")
}

/// A ratio for people.
pub(crate) fn ratio(value: f64) -> String {
    format!("x {value:.2}")
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes for people.
pub(crate) fn bytes(value: f64) -> String {
    if value >= 1024.0 * 1024.0 {
        format!("{:.1} MiB", value / (1024.0 * 1024.0))
    } else {
        format!("{:.1} KiB", value / 1024.0)
    }
}

/// A whole number with its thousands apart.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_keeps_what_people_wrote() {
        let page = replace_measured("# Benchmarks\n\nbefore\n", "a", "old\n");
        let page = replace_measured(&page, "b", "other") + "\nafter\n";
        let new = replace_measured(&page, "a", "new");
        assert_eq!(new, page.replace("old", "new"));
        assert!(new.starts_with("# Benchmarks\n\nbefore\n\n<!-- measured: a -->\n\nnew\n\n<!-- /measured: a -->\n\n<!-- measured: b"));
        assert!(new.ends_with("after\n"));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (ms(1.005), ratio(1.5), short(3.0), short(2.25)),
            ("1.00".into(), "x 1.50".into(), "3".into(), "2.25".into())
        );
        assert_eq!(
            (thousands(1_234_567.0), thousands(12.0), thousands(-1000.0)),
            ("1,234,567".into(), "12".into(), "-1,000".into())
        );
        assert_eq!(
            (bytes(2048.0), bytes(3.0 * 1024.0 * 1024.0)),
            ("2.0 KiB".into(), "3.0 MiB".into())
        );
    }

    #[test]
    fn a_miss_says_so() {
        let mut s = Section::new("x", "Title", &["what", "p50"]);
        s.rows.push(vec!["a".into(), "10".into()]);
        s.verdicts.push(Verdict::at_most("a", 3.5, 3.0));
        assert!(s.text().contains("a: 3.5 (target: at most 3) - MISSED"));
        assert!(
            s.markdown()
                .contains("| what | p50 |\n|---|---:|\n| a | 10 |")
        );
        assert_eq!(s.json()["verdicts"][0]["met"], false);
        assert!(!Verdict::at_most("nothing measured", f64::NAN, 1.0).met());
        assert!(!Verdict::at_least("nothing measured", f64::NAN, 1.0).met());
        let few = Verdict::at_least("rate", 0.5, 0.6);
        assert_eq!(few.words(), "rate: 0.5 (target: at least 0.6) - MISSED");
        assert!(Verdict::at_least("rate", 0.6, 0.6).met());
    }
}
