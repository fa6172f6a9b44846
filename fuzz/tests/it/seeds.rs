//! The corpora begin with real examples, made by code, and stay small.

use std::fs;

use spawnpoint_fuzz::TARGETS;
use spawnpoint_fuzz::corpus::{MAX_BYTES, MAX_FILES, folder, inputs};

const REWRITE: &str = "SPAWNPOINT_REWRITE";

#[test]
fn seeds_are_committed_as_they_are_made() {
    for target in TARGETS {
        let folder = folder(target);
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        if std::env::var_os(REWRITE).is_some() {
            fs::create_dir_all(&folder).unwrap();
            for (name, _) in inputs(target).unwrap() {
                if name.starts_with("seed-") {
                    fs::remove_file(folder.join(name)).unwrap();
                }
            }
            for (name, bytes) in &seeds {
                fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
            }
        }
        for (name, bytes) in seeds {
            let path = folder.join(format!("seed-{name}"));
            let committed = fs::read(&path).unwrap_or_default();
            assert!(
                committed == bytes,
                "{}/seed-{name} is not what the code makes: run it with {REWRITE}=1",
                target.name
            );
        }
    }
}

#[test]
fn corpora_are_small() {
    for target in TARGETS {
        let inputs = inputs(target).unwrap();
        let bytes: usize = inputs.iter().map(|(_, b)| b.len()).sum();
        assert!(
            inputs.len() <= MAX_FILES,
            "{}: {}",
            target.name,
            inputs.len()
        );
        assert!(bytes <= MAX_BYTES, "{}: {bytes}", target.name);
    }
}

#[test]
fn every_folder_belongs_to_a_target() {
    let root = folder(&TARGETS[0]).parent().unwrap().to_owned();
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|t| t.name == name), "{name}");
    }
}
