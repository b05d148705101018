//! Postfix, whose client sends to the servers of the lab.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use crate::cases::Decision;

/// A Postfix of its own, which listens nowhere and ends with this process.
pub struct Postfix {
    folder: TempDir,
    log: BufReader<ChildStdout>,
    process: Child,
}

impl Drop for Postfix {
    /// Waits for its end, before its folder is removed.
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Postfix {
    /// Starts Postfix with a resolver, which must validate.
    pub fn start(resolver: SocketAddr) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("envoi-postfix-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let path = folder.path();
        for name in ["etc", "queue", "data"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        run("chown", &["postfix", path.join("data").to_str().unwrap()]);
        // glibc hides the bit AD of the answers otherwise.
        let resolv_conf = format!("nameserver {}\noptions trust-ad edns0\n", resolver.ip());
        fs::write(path.join("resolv.conf"), resolv_conf).unwrap();
        fs::write(path.join("etc/main.cf"), main_cf(path)).unwrap();
        fs::write(path.join("etc/master.cf"), MASTER_CF).unwrap();
        // The pipe to the shell is closed when this process ends, however that happens.
        let script = r#"PATH=$PATH:/usr/sbin
            unshare -m sh -c 'mount --bind "$1/resolv.conf" /etc/resolv.conf &&
                exec postfix -c "$1/etc" start-fg' sh "$1" 2>&1 &
            read -r _
            postfix -c "$1/etc" stop >/dev/null 2>&1
            wait"#;
        let mut process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stdout.take().unwrap());
        let mut postfix = Postfix {
            folder,
            log,
            process,
        };
        postfix.read_until(|line| line.contains("daemon started"));
        postfix
    }

    /// Sends a message to each recipient once, and returns what became of it, with the log of that.
    pub fn send(&mut self, recipients: &[String]) -> Vec<(Decision, String)> {
        let mut sendmail = Command::new("/usr/sbin/sendmail")
            .arg("-C")
            .arg(self.folder.path().join("etc"))
            .args(["-f", "me@client.example"])
            .args(recipients)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let input = sendmail.stdin.take().unwrap();
        { input }.write_all(b"Subject: Hello\n\nHello.\n").unwrap();
        assert!(sendmail.wait().unwrap().success());
        let mut results = vec![None; recipients.len()];
        let mut sessions = Vec::new();
        while results.contains(&None) {
            let line = self.read_until(|line| {
                line.contains("TLS connection established") || line.contains("status=")
            });
            let recipient = recipients
                .iter()
                .position(|recipient| line.contains(&format!("to=<{recipient}>")));
            match recipient {
                Some(at) => results[at] = Some((decision(&line, &sessions), line)),
                None => sessions.push(line),
            }
        }
        results.into_iter().flatten().collect()
    }

    fn read_until(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        let mut log = String::new();
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).unwrap();
            assert_ne!(
                length, 0,
                "Postfix ended; run tests/mx/install.sh as root:\n{log}"
            );
            if is_wanted(&line) {
                return line;
            }
            log += &line;
        }
    }
}

/// The decision in a line about a recipient, with the lines about TLS before it.
fn decision(line: &str, sessions: &[String]) -> Decision {
    if line.contains("status=deferred") {
        return Decision::Delayed;
    }
    if line.contains("status=bounced") {
        return Decision::Returned;
    }
    assert!(line.contains("status=sent"), "{line}");
    let (_, relay) = line.split_once("relay=").unwrap();
    let (relay, _) = relay.split_once(", ").unwrap();
    // Other processes have sessions with the same server, for other domains.
    let (sender, _) = line.split_once("]: ").unwrap();
    let (_, process) = sender.rsplit_once(' ').unwrap();
    let is_of_process = |session: &&String| session.contains(&format!("{process}]: "));
    let established = format!("established to {relay}: ");
    let session = sessions
        .iter()
        .rev()
        .filter(is_of_process)
        .find(|session| session.contains(&established));
    match session {
        Some(session) if session.contains(": Verified TLS") => Decision::Verified,
        Some(_) => Decision::Encrypted,
        None => Decision::Plain,
    }
}

fn main_cf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         maillog_file = /dev/stdout\n\
         inet_interfaces = loopback-only\n\
         inet_protocols = ipv4\n\
         mydestination =\n\
         local_recipient_maps =\n\
         alias_maps =\n\
         alias_database =\n\
         myhostname = client.example\n\
         smtp_dns_support_level = dnssec\n\
         smtp_host_lookup = dns\n\
         smtp_tls_security_level = dane\n\
         smtp_tls_loglevel = 1\n"
    )
}

/// The services that sending needs, without those that listen.
const MASTER_CF: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
