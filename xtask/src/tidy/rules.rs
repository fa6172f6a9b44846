//! The rules, each a pure function.

use super::{File, Finding};

/// Which crates may not be built from which others, transitively, and so stay what they are.
pub(super) const WALLS: &[(&str, &[&str])] = &[
    // Pure decisions: nothing that serialises, waits or logs.
    ("spawnpoint-core", &["serde", "tokio", "tracing"]),
    // Faces the internet: holds no credentials of the cluster and no database.
    ("spawnpoint-gateway", &["kube", "k8s-openapi", "sqlx"]),
];

/// Lines of one file beyond which it usually hides two things.
const LONG_FILE: usize = 600;

/// What is no text.
const BINARY: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "webp", "ico", "woff2", "wasm", "gz", "ogg", "mp3",
];

/// Inputs of parsers: any bytes, found by a machine.
pub(super) const INPUTS: &str = "fuzz/corpus/";

fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or("", |(_, ext)| ext)
}

/// The lines of a Rust file before its tests, numbered from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, l)| (i + 1, l));
    lines.take_while(|(_, l)| !l.starts_with("#[cfg(test)]"))
}

fn is_test(path: &str) -> bool {
    path.split('/')
        .any(|part| ["tests", "benches", "testgame"].contains(&part))
        || path.ends_with("/tests.rs")
}

pub(super) fn text_is_utf8(file: &File) -> Vec<Finding> {
    if BINARY.contains(&extension(&file.path)) {
        return Vec::new();
    }
    let Some(text) = &file.text else {
        return vec![Finding::error(file, 0, "not valid UTF-8")];
    };
    // The replacement character, and what UTF-8 read as Latin-1 and written again looks like.
    let damaged = [
        '\u{fffd}'.to_string(),
        "\u{e2}\u{20ac}".to_owned(),
        "\u{c3}\u{a9}".to_owned(),
    ];
    let lines = text.lines().enumerate();
    let found = lines.filter(|(_, l)| damaged.iter().any(|d| l.contains(d)));
    found
        .map(|(i, _)| Finding::error(file, i + 1, "text was decoded wrongly once"))
        .collect()
}

pub(super) fn nothing_half_built(file: &File) -> Vec<Finding> {
    let Some(text) = file
        .text
        .as_deref()
        .filter(|_| extension(&file.path) == "rs")
    else {
        return Vec::new();
    };
    // Put together, or this file would be the only finding.
    let needles = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    let lines = text.lines().enumerate();
    let found = lines.filter(|(_, l)| needles.iter().any(|n| l.contains(n)));
    found
        .map(|(i, _)| Finding::error(file, i + 1, "half-built code does not land"))
        .collect()
}

pub(super) fn files_fit_in_a_head(file: &File) -> Vec<Finding> {
    let Some(text) = file
        .text
        .as_deref()
        .filter(|_| extension(&file.path) == "rs")
    else {
        return Vec::new();
    };
    let lines = code_lines(text).count();
    if is_test(&file.path) || lines <= LONG_FILE {
        return Vec::new();
    }
    vec![Finding::warning(
        file,
        format!("{lines} lines without tests: it may hide two things"),
    )]
}

pub(super) fn only_the_command_line_prints(file: &File) -> Vec<Finding> {
    let library = file.path.starts_with("crates/") && !file.path.starts_with("crates/cli/");
    let code = library && extension(&file.path) == "rs" && !is_test(&file.path);
    let Some(text) = file.text.as_deref().filter(|_| code) else {
        return Vec::new();
    };
    let prints = |line: &str| {
        let line = line.trim_start();
        let macros = ["println!(", "eprintln!(", "print!(", "eprint!(", "dbg!("];
        !line.starts_with("//")
            && (macros.iter().any(|m| line.starts_with(m)) || line.contains("clippy::print_std"))
    };
    code_lines(text)
        .filter(|(_, l)| prints(l))
        .map(|(n, _)| Finding::error(file, n, "only crates/cli and games print: use tracing"))
        .collect()
}

pub(super) fn no_path_of_one_machine(file: &File) -> Vec<Finding> {
    let Some(text) = &file.text else {
        return Vec::new();
    };
    let mut roots = vec![concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    if !is_test(&file.path) {
        // A test may make up somebody's home.
        roots.extend([
            concat!("/ho", "me/"),
            concat!("/Us", "ers/"),
            concat!("/t", "mp/"),
        ]);
    }
    // Part of a longer path or address (`https://host/home/`) or of a relative one is no path of a machine.
    let starts = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| {
            !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '/' | ')' | '}' | '~')
        })
    };
    let names = |line: &str| {
        roots
            .iter()
            .any(|r| line.match_indices(r).any(|(at, _)| starts(line, at)))
    };
    let lines = text.lines().enumerate();
    let found = lines.filter(|(_, l)| names(l));
    let what = "a path of one machine: use a relative one, or a temporary directory";
    found
        .map(|(i, _)| Finding::error(file, i + 1, what))
        .collect()
}

/// Relative links of Markdown files lead somewhere.
pub(super) fn links_resolve(file: &File, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let Some(text) = file
        .text
        .as_deref()
        .filter(|_| extension(&file.path) == "md")
    else {
        return Vec::new();
    };
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, prose) in prose_lines(text) {
        for target in prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = target.split(['#', ' ']).next().unwrap_or(target);
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if path.is_empty() || elsewhere {
                continue;
            }
            let resolved = resolve(folder, path);
            if !resolved.as_deref().is_some_and(exists) {
                findings.push(Finding::error(
                    file,
                    line,
                    format!("`{target}` leads nowhere"),
                ));
            }
        }
    }
    findings
}

/// Features that arm fault points and injected bugs.
const DEADLY: &[&str] = &["faults", "simulation"];

/// Fault points and injected bugs are turned on by whoever builds for them, never by a manifest: no crate has them by default, and no
/// dependency asks for them.
pub(super) fn nothing_that_ships_can_be_told_to_die(file: &File) -> Vec<Finding> {
    let manifest = file.path.ends_with("Cargo.toml");
    let Some(text) = file.text.as_deref().filter(|_| manifest) else {
        return Vec::new();
    };
    let deadly = |line: &str| {
        let line = line.trim_start();
        let asks = line.contains("features = [") && !line.starts_with("required-features");
        !line.starts_with('#')
            && (asks || line.starts_with("default ="))
            && DEADLY.iter().any(|name| line.contains(name))
    };
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| deadly(line))
        .map(|(i, _)| Finding::error(file, i + 1, "fault points are for test builds only"))
        .collect()
}

/// `ARCHITECTURE.md` names only what is there: every path in backquotes that begins with a folder of the repository.
pub(super) fn architecture_names_what_exists(
    file: &File,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let Some(text) = file
        .text
        .as_deref()
        .filter(|_| file.path == "ARCHITECTURE.md")
    else {
        return Vec::new();
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let mut findings = Vec::new();
    for (line, prose) in prose_lines(text) {
        for name in prose.split('`').skip(1).step_by(2) {
            let top = name.split_once('/').map(|(top, _)| top);
            let ours = top.is_some_and(|t| !t.is_empty() && exists(t));
            if ours && name.chars().all(plain) && !exists(name) {
                findings.push(Finding::error(
                    file,
                    line,
                    format!("`{name}` does not exist"),
                ));
            }
        }
    }
    findings
}

/// The lines of a Markdown file outside its code blocks, numbered from 1.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((i + 1, line))
    })
}

/// The path from the root; `None` when it leads out of the repository.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = match path.starts_with('/') {
        true => Vec::new(),
        false => folder.split('/').filter(|p| !p.is_empty()).collect(),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(super) fn wall_holds(package: &str, banned: &[&str], built_from: &[String]) -> Vec<Finding> {
    let found = banned.iter().filter(|b| built_from.iter().any(|d| d == *b));
    found
        .map(|b| Finding {
            path: format!(
                "crates/{}/Cargo.toml",
                package.trim_start_matches("spawnpoint-")
            ),
            line: 0,
            what: format!(
                "{package} must not be built from {b} (`cargo tree -p {package} -i {b}`)"
            ),
            warning: false,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: Some(text.to_owned()),
        }
    }

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|f| f.line).collect()
    }

    #[test]
    fn fault_points_are_never_turned_on_by_a_manifest() {
        let found = |text: &str| {
            let file = File {
                path: "crates/x/Cargo.toml".to_owned(),
                text: Some(text.to_owned()),
            };
            nothing_that_ships_can_be_told_to_die(&file).len()
        };
        assert_eq!(found("default = [\"faults\"]"), 1);
        assert_eq!(
            found("a = { path = \"a\", features = [\"simulation\"] }"),
            1
        );
        assert_eq!(
            found("faults = [\"a/faults\"]\nrequired-features = [\"faults\"]"),
            0
        );
    }

    #[test]
    fn damaged_and_undecodable_text_is_found() {
        let ok = file("a.md", "caf\u{e9} \u{2192}\n");
        assert!(text_is_utf8(&ok).is_empty());
        assert_eq!(
            lines(&text_is_utf8(&file("a.md", "x\nit\u{e2}\u{20ac}\u{2122}s"))),
            [2]
        );
        let raw = |path: &str| File {
            path: path.to_owned(),
            text: None,
        };
        assert_eq!(text_is_utf8(&raw("a.md")).len(), 1);
        assert!(text_is_utf8(&raw("docs/a.png")).is_empty());
    }

    #[test]
    fn half_built_code_is_found_in_code_only() {
        let text = concat!("fn f() {\n    to", "do!()\n}\n");
        assert_eq!(lines(&nothing_half_built(&file("a.rs", text))), [2]);
        assert!(nothing_half_built(&file("a.md", text)).is_empty());
    }

    #[test]
    fn tests_do_not_make_a_file_long() {
        let long = "x\n".repeat(600) + "#[cfg(test)]\n" + &"y\n".repeat(600);
        assert!(files_fit_in_a_head(&file("a.rs", &long)).is_empty());
        let longer = "x\n".repeat(601);
        assert!(files_fit_in_a_head(&file("a.rs", &longer))[0].warning);
        assert!(files_fit_in_a_head(&file("crates/a/tests/it/main.rs", &longer)).is_empty());
    }

    #[test]
    fn libraries_do_not_print() {
        let text = "// println!(1)\n    println!(\"x\");\n#[allow(clippy::print_stdout)]\n#[cfg(test)]\nprintln!(2)\n";
        let found = |path| lines(&only_the_command_line_prints(&file(path, text)));
        assert_eq!(found("crates/server/src/lib.rs"), [2, 3]);
        assert!(found("crates/cli/src/main.rs").is_empty());
        assert!(found("games/spice/src/main.rs").is_empty());
        assert!(found("crates/server/tests/it/main.rs").is_empty());
    }

    #[test]
    fn paths_of_a_machine_are_found_and_addresses_are_not() {
        let home = concat!("/ho", "me/");
        let bad = format!("a\nsee {home}ann/x\n(`{home}y`)\n");
        assert_eq!(lines(&no_path_of_one_machine(&file("a.md", &bad))), [2, 3]);
        let ok = format!("https://example.com{home}\n./fixtures{home}\n{{root}}{home}\n");
        assert!(no_path_of_one_machine(&file("a.md", &ok)).is_empty());
        assert!(no_path_of_one_machine(&file("crates/a/src/tests.rs", &bad)).is_empty());
    }

    #[test]
    fn links_are_resolved_from_their_file() {
        let exists = |p: &str| ["docs/b.md", "README.md", "docs"].contains(&p);
        let text = "[b](b.md#part) [up](../README.md \"title\") [w](https://x.org/y) [here](#a)\n\
                    ```\n[code](no.md)\n```\n[gone](c.md) [out](../../x.md) [root](/docs/b.md)\n";
        let found = links_resolve(&file("docs/a.md", text), &exists);
        assert_eq!(lines(&found), [5, 5]);
        assert!(found[0].what.contains("c.md") && found[1].what.contains("../../x.md"));
    }

    #[test]
    fn architecture_is_held_to_its_word() {
        let exists = |p: &str| ["crates", "crates/core"].contains(&p);
        let text = "`crates/core` `crates/gone/src` `GET /x` `text/html` `crates/{a,b}`\n```\n`crates/x`\n```\n";
        let found = architecture_names_what_exists(&file("ARCHITECTURE.md", text), &exists);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("crates/gone/src"));
        assert!(architecture_names_what_exists(&file("README.md", text), &exists).is_empty());
    }

    #[test]
    fn walls_are_named_with_the_way_to_find_the_hole() {
        let built_from = [
            "spawnpoint-core".to_owned(),
            "uuid".to_owned(),
            "serde".to_owned(),
        ];
        let found = wall_holds("spawnpoint-core", &["serde", "tokio"], &built_from);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("-i serde"));
        assert!(wall_holds("spawnpoint-core", &["kube"], &built_from).is_empty());
    }
}
