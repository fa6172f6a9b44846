//! Shows that each injected bug is found: at which seed, and by which checker.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use spawnpoint_server::mutant::{Mutant, switch};

use crate::plan::Cut;
use crate::run::run_seed;
use crate::world::Finding;

/// Where the table is in the document.
const BEGIN: &str = "<!-- mutants: begin -->";
const END: &str = "<!-- mutants: end -->";

/// One bug, and how it was found.
struct Row {
    name: &'static str,
    found: Option<(u64, Finding)>,
}

/// Switches the bug of this name on for the whole process.
///
/// # Errors
/// When there is none of this name.
pub fn switch_by_name(name: &str) -> std::io::Result<()> {
    let all = Mutant::ALL.iter();
    let mutant = all.clone().find(|(_, n)| *n == name).map(|(m, _)| *m);
    let Some(mutant) = mutant else {
        let names: Vec<_> = all.map(|(_, n)| *n).collect();
        let known = names.join(", ");
        return Err(std::io::Error::other(format!(
            "there is no bug `{name}`; there are: {known}"
        )));
    };
    switch(Some(mutant));
    Ok(())
}

/// Injects each bug in turn and runs worlds until one finds it, at most this many.
///
/// # Errors
/// When no runtime can be had, or the document cannot be written.
pub fn all(
    seeds: u64,
    threads: usize,
    only: Option<&str>,
    write: Option<&Path>,
) -> std::io::Result<ExitCode> {
    let mut rows = Vec::new();
    let mut out = std::io::stdout();
    for (mutant, name) in Mutant::ALL {
        if only.is_some_and(|o| !name.contains(o)) {
            continue;
        }
        switch(Some(mutant));
        let found = hunt(seeds, threads);
        switch(None);
        let row = Row {
            name,
            found: found?,
        };
        let _ = writeln!(out, "{}", line(&row));
        rows.push(row);
    }
    if let Some(path) = write {
        let page = std::fs::read_to_string(path)?;
        std::fs::write(path, put(&page, &table(&rows, seeds))?)?;
    }
    let all = rows.iter().all(|r| r.found.is_some());
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first seed whose world finds something.
fn hunt(seeds: u64, threads: usize) -> std::io::Result<Option<(u64, Finding)>> {
    let next = AtomicU64::new(1);
    let last = AtomicU64::new(seeds);
    let found: Mutex<Option<(u64, Finding)>> = Mutex::new(None);
    let work = || -> std::io::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            // Those before the first that was found are still run: which is the first does not depend on the threads.
            if seed > last.load(Ordering::SeqCst) {
                return Ok(());
            }
            if let Some(finding) = run_seed(seed, &Cut::default())?.finding {
                last.fetch_min(seed, Ordering::SeqCst);
                if let Ok(mut first) = found.lock()
                    && first.as_ref().is_none_or(|(s, _)| *s > seed)
                {
                    *first = Some((seed, finding));
                }
            }
        }
    };
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| s.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| {
            t.join()
                .unwrap_or_else(|_| Err(std::io::Error::other("a world panicked")))
        })
    })?;
    Ok(found.into_inner().ok().flatten())
}

fn line(row: &Row) -> String {
    match &row.found {
        Some((seed, f)) => format!(
            "{}: found at seed {seed} by \"{}\": {}",
            row.name, f.checker, f.what
        ),
        None => format!("{}: NOT FOUND", row.name),
    }
}

fn table(rows: &[Row], seeds: u64) -> String {
    let mut out = format!(
        "Written by `make mutants SEEDS={seeds}`.\n\n| injected bug | found at seed | by the checker |\n|---|---|---|\n"
    );
    for row in rows {
        let (seed, checker) = match &row.found {
            Some((seed, f)) => (seed.to_string(), f.checker),
            None => ("**not found**".to_owned(), ""),
        };
        out.push_str(&format!("| {} | {seed} | {checker} |\n", row.name));
    }
    out
}

fn put(page: &str, table: &str) -> std::io::Result<String> {
    let missing = || std::io::Error::other(format!("the document has no `{BEGIN}` ... `{END}`"));
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}
