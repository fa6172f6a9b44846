//! A report as one HTML file that needs nothing else: no script, no network, light and dark, wide and narrow.

use std::fmt::Write as _;

use crate::plots::{self, Line};
use crate::report::{FaultCount, Report};
use crate::stats::Spread;
use crate::summary::{request_rates, span};

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fbfaf8;--card:#fff;--ink:#22201d;--dim:#6b665f;--grid:#dedad3;--good:#1d7a46;--bad:#b3261e;\
--c1:#1f5f8b;--c2:#b8742a;--c3:#2f7d4f;--c4:#7a4fa3;--c5:#5f6b75;--c6:#b3261e}\
@media(prefers-color-scheme:dark){:root{--bg:#171614;--card:#201e1c;--ink:#eae6df;--dim:#a29b91;--grid:#3d3935;--good:#63c58d;\
--bad:#ff8a80;--c1:#6db6e8;--c2:#e8a862;--c3:#74cf98;--c4:#c49aee;--c5:#a9b4bd;--c6:#ff8a80}}\
*{box-sizing:border-box}body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:60rem;background:var(--bg);color:var(--ink);\
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.dim{color:var(--dim)}\
.verdict{display:inline-block;padding:.1rem .7rem;border-radius:1rem;color:var(--bg);font-weight:600}\
.good{background:var(--good)}.bad{background:var(--bad)}\
ul.causes{color:var(--bad);margin:.6rem 0;padding-left:1.2rem}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:1rem 0}\
.tile{background:var(--card);border:1px solid var(--grid);border-radius:.5rem;padding:.5rem .8rem}.tile b{display:block;font-size:1.3rem}\
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--grid);border-radius:.5rem;padding:.3rem .8rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;overflow-wrap:normal}\
th,td{text-align:right;padding:.35rem .5rem;border-bottom:1px solid var(--grid);white-space:nowrap}\
th:first-child,td:first-child{text-align:left}td.words{white-space:normal;text-align:left;min-width:14rem}\
tr:last-child td{border-bottom:0}th{color:var(--dim);font-weight:500;font-size:.85rem}\
.plot svg{display:block;width:100%;min-width:34rem;height:auto}\
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.4rem 0;font-size:.9rem}\
.legend i{display:inline-block;width:1.1rem;height:.25rem;border-radius:.1rem;margin-right:.4rem;vertical-align:middle}\
.bar{display:block;height:.5rem;border-radius:.25rem;background:var(--bad);min-width:2px}";

/// The report as a page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut out = String::with_capacity(64 * 1024);
    // Writing to a String cannot fail.
    let _ = head(&mut out, report)
        .and_then(|()| tiles(&mut out, report))
        .and_then(|()| phases(&mut out, report))
        .and_then(|()| curves(&mut out, report))
        .and_then(|()| timeline(&mut out, report))
        .and_then(|()| faults(&mut out, "Failures", &report.faults, report.clients.total))
        .and_then(|()| {
            faults(
                &mut out,
                "Overcome",
                &report.recovered,
                report.clients.total,
            )
        })
        .and_then(|()| records(&mut out, report))
        .and_then(|()| requests(&mut out, report))
        .and_then(|()| tester(&mut out, report));
    out.push_str("</body></html>\n");
    out
}

fn head(out: &mut String, r: &Report) -> std::fmt::Result {
    let c = &r.config;
    let (class, word) = match (r.verdict.passed, r.interrupted) {
        (true, _) => ("good", "passed"),
        (false, true) => ("bad", "ended early"),
        (false, false) => ("bad", "failed"),
    };
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Load test of {target}: {word}</title><style>{STYLE}</style></head><body>\
         <h1>Load test of {target} <span class=\"verdict {class}\">{word}</span></h1>\
         <p class=\"dim\">{began} · {clients} clients {rate} · {mode}, fleet {fleet} · {duration} s matches{wait}</p>",
        target = escape(&c.target),
        began = escape(&r.began_at),
        clients = c.clients,
        rate = if c.spawn_rate > 0.0 {
            format!("{} a second", c.spawn_rate)
        } else {
            "all at once".to_owned()
        },
        mode = c.mode,
        fleet = escape(c.fleet.as_deref().unwrap_or("by default")),
        duration = c.match_duration_s,
        wait = if c.wait_only {
            ", ended by the games alone"
        } else {
            ""
        },
    )?;
    if !r.verdict.causes.is_empty() {
        out.push_str("<ul class=\"causes\">");
        for cause in &r.verdict.causes {
            write!(out, "<li>{}</li>", escape(cause))?;
        }
        out.push_str("</ul>");
    }
    for doubt in &r.doubts {
        write!(out, "<p><b>Note:</b> {}</p>", escape(doubt))?;
    }
    Ok(())
}

fn tiles(out: &mut String, r: &Report) -> std::fmt::Result {
    let t = &r.clients;
    let mut all = vec![
        ("clients done", t.done.to_string()),
        ("forced ends", t.forced.to_string()),
        ("failed", t.failed.to_string()),
        ("matches", r.matches.to_string()),
        (
            "to the first word, p99",
            time(&r.to_first_word, r.to_first_word.p99_ms),
        ),
        ("round trip, p99", time(&r.round_trip, r.round_trip.p99_ms)),
        ("all in all", format!("{:.1} s", r.wall_s)),
    ];
    if t.interrupted > 0 {
        all.insert(3, ("interrupted", t.interrupted.to_string()));
    }
    out.push_str("<div class=\"tiles\">");
    for (name, value) in all {
        write!(
            out,
            "<div class=\"tile\"><b>{value}</b><span class=\"dim\">{name}</span></div>"
        )?;
    }
    out.push_str("</div>");
    Ok(())
}

fn time(spread: &Spread, ms: f64) -> String {
    if spread.count == 0 {
        "–".to_owned()
    } else {
        span(ms)
    }
}

fn phases(out: &mut String, r: &Report) -> std::fmt::Result {
    out.push_str(
        "<h2>Times</h2><div class=\"wide\"><table><tr><th>phase</th><th>passed</th><th>failed</th><th>mean</th><th>p50</th>\
         <th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr>",
    );
    for p in &r.phases {
        row(
            out,
            p.phase.as_str(),
            p.passed as u64,
            &p.failed.to_string(),
            &p.times,
        )?;
    }
    row(
        out,
        "to the first word",
        r.to_first_word.count,
        "",
        &r.to_first_word,
    )?;
    row(out, "round trip", r.round_trip.count, "", &r.round_trip)?;
    if let Some(inputs) = &r.input_to_state {
        row(out, "input to state", inputs.count, "", inputs)?;
    }
    out.push_str(
        "</table></div><p class=\"dim\">Counted from intended times: a client's start, a question's moment. Who waits because the server \
         or this machine was late has waited.</p>",
    );
    Ok(())
}

fn row(out: &mut String, name: &str, passed: u64, failed: &str, t: &Spread) -> std::fmt::Result {
    write!(out, "<tr><td>{name}</td><td>{passed}</td><td>{failed}</td>")?;
    for ms in [
        t.mean_ms, t.p50_ms, t.p90_ms, t.p95_ms, t.p99_ms, t.p999_ms, t.max_ms,
    ] {
        write!(out, "<td>{}</td>", time(t, ms))?;
    }
    out.push_str("</tr>");
    Ok(())
}

fn curves(out: &mut String, r: &Report) -> std::fmt::Result {
    // Playing takes as long as it was told to: its curve would only squeeze the others.
    let mut shown: Vec<(&str, &Spread)> = r
        .phases
        .iter()
        .filter(|p| p.phase != crate::Phase::Play)
        .map(|p| (p.phase.as_str(), &p.times))
        .collect();
    shown.push(("round trip", &r.round_trip));
    if let Some(inputs) = &r.input_to_state {
        shown.push(("input to state", inputs));
    }
    let lines = plots::curves(&shown);
    let Some(svg) = plots::distributions(&lines) else {
        return Ok(());
    };
    out.push_str("<h2>How many waited at most how long</h2>");
    legend(out, &lines)?;
    write!(out, "<div class=\"wide plot\">{svg}</div>")
}

fn timeline(out: &mut String, r: &Report) -> std::fmt::Result {
    let lines = plots::timeline(&r.timeline);
    let Some(svg) = plots::over_time(&lines) else {
        return Ok(());
    };
    out.push_str("<h2>Where the clients were</h2>");
    legend(out, &lines)?;
    write!(out, "<div class=\"wide plot\">{svg}</div>")
}

fn legend(out: &mut String, lines: &[Line<'_>]) -> std::fmt::Result {
    out.push_str("<div class=\"legend\">");
    for line in lines {
        let (colour, name) = (line.colour_name(), line.name);
        write!(
            out,
            "<span><i style=\"background:var({colour})\"></i>{name}</span>"
        )?;
    }
    out.push_str("</div>");
    Ok(())
}

fn faults(
    out: &mut String,
    title: &str,
    faults: &[FaultCount],
    clients: usize,
) -> std::fmt::Result {
    if faults.is_empty() {
        return Ok(());
    }
    write!(
        out,
        "<h2>{title}</h2><div class=\"wide\"><table><tr><th>class</th><th>phase</th><th>times</th><th></th><th></th></tr>"
    )?;
    for f in faults {
        let share = (f.count as f64 * 100.0 / clients.max(1) as f64).clamp(0.0, 100.0);
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td style=\"width:20%\"><i class=\"bar\" style=\"width:{share:.1}%\"></i></td>\
             <td class=\"words\">{}</td></tr>",
            escape(&f.class),
            f.phase,
            f.count,
            escape(&f.example)
        )?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn records(out: &mut String, r: &Report) -> std::fmt::Result {
    let check = &r.records;
    out.push_str("<h2>What the server recorded</h2>");
    if let Some(why) = &check.unchecked {
        return write!(out, "<p>Not compared: {}</p>", escape(why));
    }
    write!(
        out,
        "<p>{} of {} sessions have exactly one record with everybody in it and a reason that fits.</p>",
        check.found.saturating_sub(check.mismatched),
        check.expected
    )?;
    if !check.reasons.is_empty() {
        out.push_str("<div class=\"wide\"><table><tr><th>reason</th><th>records</th></tr>");
        for (reason, count) in &check.reasons {
            write!(out, "<tr><td>{}</td><td>{count}</td></tr>", escape(reason))?;
        }
        out.push_str("</table></div>");
    }
    for m in &check.mismatches {
        write!(
            out,
            "<p>{} ({}): {}</p>",
            escape(&m.session_id),
            m.kind,
            escape(&m.detail)
        )?;
    }
    Ok(())
}

fn requests(out: &mut String, r: &Report) -> std::fmt::Result {
    write!(out, "<h2>Requests</h2><p>{}.</p>", request_rates(r))?;
    if r.requests.calls.is_empty() {
        return Ok(());
    }
    out.push_str("<div class=\"wide\"><table><tr><th>call</th><th>requests</th></tr>");
    for (call, count) in &r.requests.calls {
        write!(out, "<tr><td>{}</td><td>{count}</td></tr>", escape(call))?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn tester(out: &mut String, r: &Report) -> std::fmt::Result {
    let t = &r.tester;
    let memory = t.peak_memory.map_or_else(String::new, |bytes| {
        format!(", {} MiB of memory at most", bytes >> 20)
    });
    write!(
        out,
        "<h2>What the tester itself took</h2><p>{:.1} s of processor, {:.0} % of {} processors{memory}. Clients were started {} after \
         their intended time (p99; at most {}).</p>",
        t.cpu_s,
        t.cpu_share * 100.0,
        t.cpus,
        time(&t.start_lag, t.start_lag.p99_ms),
        time(&t.start_lag, t.start_lag.max_ms),
    )
}

/// What servers and games said is text, never markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::RecordsCheck;
    use crate::report::Outcome;
    use crate::report::tests::{report, row as client};
    use crate::{Fault, Phase};

    #[test]
    fn one_file_that_loads_nothing_and_trusts_nobody() {
        let mut rows: Vec<_> = (0..99).map(|n| client(n, Outcome::Done)).collect();
        let mut evil = crate::ClientRow::new(99, std::time::Duration::ZERO);
        evil.failed(
            Phase::Play,
            Fault::new("<b>", "</td><script>alert(1)</script>"),
        );
        rows.push(evil);
        let page = html(&report(rows, RecordsCheck::default()));
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        // The SVG name space is a name, not an address that is fetched.
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("src=") && !links.contains("href=") && !links.contains("url("));
        assert!(page.contains("<svg") && page.contains("99 of 100") || page.contains("1 of 100"));
    }
}
