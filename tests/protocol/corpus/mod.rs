//! Replays the inputs of the fuzz targets: the seeds in `fuzz/seeds`, and inputs made from the
//! dialogues.
//!
//! `ENVOI_WRITE_SEEDS=1 cargo test --all-features --test protocol corpus` writes the inputs made
//! from the dialogues into `fuzz/corpus`.

mod seeds;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use support::dialogue::{self, Dialogue};
use support::fuzz;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The inputs of a target with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder("fuzz/seeds").join(target)).expect("each target has seeds");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .iter()
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect()
}

fn replay(target: &str, seeds: fn(&Dialogue) -> Vec<Vec<u8>>) {
    let check = fuzz::check(target);
    let mut inputs = Vec::new();
    for (name, dialogue) in dialogue::read_folder(&folder("tests/dialogues")) {
        for (number, seed) in seeds(&dialogue).into_iter().enumerate() {
            if std::env::var_os("ENVOI_WRITE_SEEDS").is_some() {
                let corpus = folder("fuzz/corpus").join(target);
                fs::create_dir_all(&corpus).unwrap();
                fs::write(corpus.join(format!("dialogue-{name}-{number}")), &seed).unwrap();
            }
            inputs.push((format!("seed {number} of the dialogue {name}"), seed));
        }
    }
    inputs.extend(corpus(target));
    for (name, input) in inputs {
        assert!(catch_unwind(|| check(&input)).is_ok(), "{target}: {name}");
    }
}

#[cfg(feature = "keystores")]
#[test]
fn address_inputs_pass_the_check() {
    replay("address", seeds::address);
}

#[test]
fn capabilities_inputs_pass_the_check() {
    replay("capabilities", seeds::capabilities);
}

#[cfg(all(feature = "dkim", feature = "keystores"))]
#[test]
fn dkim_inputs_pass_the_check() {
    replay("dkim", |_| Vec::new());
}

#[test]
fn dot_inputs_pass_the_check() {
    replay("dot", seeds::dot);
}

#[cfg(feature = "keystores")]
#[test]
fn keystore_inputs_pass_the_check() {
    replay("keystore", |_| Vec::new());
    let stores = fs::read_dir(folder("src/tls/tests/stores")).unwrap();
    for path in stores.map(|entry| entry.unwrap().path()) {
        assert!(
            catch_unwind(|| fuzz::check("keystore")(&fs::read(&path).unwrap())).is_ok(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn machine_inputs_pass_the_check() {
    replay("machine", seeds::machine);
}

#[cfg(feature = "keystores")]
#[test]
fn message_inputs_pass_the_check() {
    replay("message", seeds::message);
}

#[cfg(all(feature = "keystores", feature = "mx"))]
#[test]
fn mta_sts_inputs_pass_the_check() {
    replay("mta_sts", |_| Vec::new());
}

#[test]
fn reply_inputs_pass_the_check() {
    replay("reply", seeds::reply);
}

#[test]
fn server_inputs_pass_the_check() {
    replay("server", |_| Vec::new());
}

#[cfg(all(feature = "keystores", feature = "mx"))]
#[test]
fn tlsa_inputs_pass_the_check() {
    replay("tlsa", |_| Vec::new());
}

/// A target that is not replayed here, or a folder of seeds without a target, was forgotten.
#[test]
fn every_target_has_seeds_and_is_replayed() {
    let names = |path: &str| {
        let entries = fs::read_dir(folder(path))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = entries
            .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("fuzz/fuzz_targets"), fuzz::TARGETS);
    assert_eq!(names("fuzz/seeds"), fuzz::TARGETS);
}
