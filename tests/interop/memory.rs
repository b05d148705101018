//! A gigabyte goes through `send` to a real Postfix in a few megabytes of memory.
//!
//! It takes 4 GB of the disk and, as built for tests, a minute: `--skip gigabyte` leaves it out.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::example::program;
use crate::servers::{ALICE, postfix, someone};

use support::rss::peak_resident;

const SIZE: u64 = 1 << 30;
const MAX_RESIDENT: u64 = 32 << 20;

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_delivers_a_gigabyte_in_32_mb_of_memory() {
    let server = postfix();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gigabyte.bin");
    write_gigabyte(&path);
    // As a file, and as a reader inside the message. One after the other, for the disk's sake.
    for (attach, stdin) in [
        (path.to_str().unwrap(), Stdio::null()),
        ("-", File::open(&path).unwrap().into()),
    ] {
        let to = someone("gigabyte");
        let began = Instant::now();
        let mut send = Command::new(program())
            .args([
                "--url",
                &server.starttls(ALICE),
                "--from",
                "alice@envoi.test",
                "--to",
                to.as_str(),
            ])
            .args([
                "--subject",
                "A gigabyte",
                "--body",
                "See attachment.",
                "--attach",
                attach,
            ])
            .stdin(stdin)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut peak = 0;
        let status = loop {
            // The kernel's own high-water mark: what lies between two looks is in it.
            peak = peak_resident(send.id()).unwrap_or(peak);
            if let Some(status) = send.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let seconds = began.elapsed().as_secs_f64();
        assert!(status.success(), "{status}");
        // Past the test harness, which hides what successful tests print.
        let _ = writeln!(
            std::io::stderr(),
            "1 GiB, --attach {attach}: {seconds:.1} s, peak {} KiB",
            peak >> 10
        );
        assert!(
            peak > 0 && peak < MAX_RESIDENT,
            "{peak} bytes were resident"
        );

        let files = server.files(&to, 1).await;
        assert_same(&files[0], &path);
        std::fs::remove_file(&files[0]).unwrap();
    }
}

/// Different at every place, so that nothing lost, doubled or out of order goes unseen.
fn write_gigabyte(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut block = vec![0; 1 << 20];
    for number in 0..SIZE >> 20 {
        for (at, place) in block.chunks_exact_mut(8).enumerate() {
            let value = (number << 17 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            place.copy_from_slice(&value.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
}

/// The attachment of a delivered message is the file, read by programs that have nothing of ours in
/// them.
fn assert_same(delivered: &Path, file: &Path) {
    let mut message = File::open(delivered).unwrap();
    let mut head = vec![0; 8192];
    message.read_exact(&mut head).unwrap();
    let head = String::from_utf8(head).unwrap();
    let headers = head.find("Content-Disposition: attachment").unwrap();
    let start = headers + head[headers..].find("\n\n").unwrap() + 2;
    message.seek(SeekFrom::Start(start as u64)).unwrap();
    // It ends where the boundary begins, whose hyphens are no base64.
    let script = "sed '/^--/,$d' | base64 --decode | cmp - \"$1\"";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(file)
        .stdin(message)
        .status()
        .unwrap();
    assert!(status.success(), "the attachment is not the file");
}
