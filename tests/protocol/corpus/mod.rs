//! Replays what the fuzzers know: for each target of `fuzz/fuzz_targets` its seeds in `fuzz/seeds`,
//! and what the dialogues say.
//!
//! `ENVOI_WRITE_SEEDS=1 cargo test --all-features --test protocol corpus` writes what comes of the dialogues
//! into `fuzz/corpus`.

mod seeds;

#[path = "../../../fuzz/fuzz_targets/address.rs"]
mod address;
#[path = "../../../fuzz/fuzz_targets/capabilities.rs"]
mod capabilities;
#[path = "../../../fuzz/fuzz_targets/dot.rs"]
#[allow(clippy::duplicate_mod)] // Of the strict decoder: each target is a program of its own, too.
mod dot;
#[path = "../../../fuzz/fuzz_targets/keystore.rs"]
mod keystore;
#[path = "../../../fuzz/fuzz_targets/machine.rs"]
mod machine;
#[path = "../../../fuzz/fuzz_targets/message.rs"]
#[allow(clippy::duplicate_mod)]
mod message;
#[path = "../../../fuzz/fuzz_targets/reply.rs"]
mod reply;
#[path = "../../../fuzz/fuzz_targets/server.rs"]
mod server;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::support::dialogue::{self, Dialogue};

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

fn replay(target: &str, seeds: fn(&Dialogue) -> Vec<Vec<u8>>, check: fn(&[u8])) {
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

#[test]
fn address() {
    replay("address", seeds::address, address::check);
}

#[test]
fn capabilities() {
    replay("capabilities", seeds::capabilities, capabilities::check);
}

#[test]
fn dot() {
    replay("dot", seeds::dot, dot::check);
}

#[test]
fn keystore() {
    replay("keystore", |_| Vec::new(), keystore::check);
    let stores = fs::read_dir(folder("src/tls/tests/stores")).unwrap();
    for path in stores.map(|entry| entry.unwrap().path()) {
        assert!(
            catch_unwind(|| keystore::check(&fs::read(&path).unwrap())).is_ok(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn machine() {
    replay("machine", seeds::machine, machine::check);
}

#[test]
fn message() {
    replay("message", seeds::message, message::check);
}

#[test]
fn reply() {
    replay("reply", seeds::reply, reply::check);
}

#[test]
fn server() {
    replay("server", |_| Vec::new(), server::check);
}

/// A target that is not replayed here, or a folder of seeds without a target, was forgotten.
#[test]
fn all_targets_are_here() {
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
    let here = [
        "address",
        "capabilities",
        "dot",
        "keystore",
        "machine",
        "message",
        "reply",
        "server",
    ];
    assert_eq!(names("fuzz/fuzz_targets"), here);
    assert_eq!(names("fuzz/seeds"), here);
}
