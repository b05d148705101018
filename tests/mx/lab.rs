//! The servers of the lab: NSD has the zones, Unbound resolves from their root.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use envoi::testing::{Builder, Server};
use tempfile::TempDir;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::certificates::Certificates;
use crate::zone::Zone;

/// The DNS servers, and the addresses and certificates of mail servers.
pub struct Lab {
    pub certificates: Certificates,
    /// The DS records of the root, as a zone file has them.
    pub anchors: String,
    folder: TempDir,
    net: Net,
    port_v6: Option<u16>,
    _servers: [Child; 2],
}

/// The lab of this process, which is started when it is first needed.
pub fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(Lab::start)
}

impl Lab {
    /// The address of the loopback interface that the zones write as `{last}`.
    pub fn address(&self, last: u8) -> Ipv4Addr {
        self.net.address(last)
    }

    /// The address of Unbound, which validates, unless a question has the bit CD.
    pub fn resolver(&self) -> SocketAddr {
        (self.address(54), 53).into()
    }

    /// The same by IPv6, on machines that have it.
    pub fn resolver_v6(&self) -> Option<SocketAddr> {
        Some((Ipv6Addr::LOCALHOST, self.port_v6?).into())
    }

    /// A file with the [`anchors`](Self::anchors).
    pub fn anchor_file(&self) -> PathBuf {
        self.folder.path().join("anchors")
    }

    /// A file with the certificate of the CA.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The settings of a mail server on port 25 of the address `{last}`, with the certificate of
    /// this [id](Certificates::get), and without the CA's.
    pub fn server(&self, last: u8, certificate: &str) -> Builder {
        let issued = self.certificates.get(certificate);
        Server::builder()
            .address(self.address(last))
            .port(25)
            .certificate_pem(issued.pem, issued.key_pem)
    }

    /// Starts a server where another one was before.
    ///
    /// A child of this process has copies of its listening sockets until it runs its program, also
    /// of those that were closed meanwhile: the address may be in use for that time.
    pub async fn start_again(&self, settings: impl Fn() -> Builder) -> Server {
        let starting = async {
            loop {
                match settings().start().await {
                    Err(error) if error.kind() == ErrorKind::AddrInUse => yield_now().await,
                    started => return started.unwrap(),
                }
            }
        };
        let limit = Duration::from_secs(30);
        timeout(limit, starting).await.expect("the address is free")
    }

    fn start() -> Lab {
        let net = Net::take();
        let certificates = Certificates::new();
        let folder = tempfile::Builder::new()
            .prefix("envoi-mx-")
            .tempdir()
            .unwrap();
        let path = folder.path();
        let zones = Zone::read_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mx/zones").as_ref());
        let anchors = write_zones(&zones, path, &net, &certificates);
        fs::write(path.join("anchors"), &anchors).unwrap();
        fs::write(path.join("ca.pem"), certificates.ca_pem()).unwrap();

        fs::write(path.join("nsd.conf"), nsd_conf(&zones, path, &net)).unwrap();
        let nsd = serve(path, "nsd", &["-d", "-c", "nsd.conf"], "nsd started");
        let port_v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .map(|address| address.port())
            .ok();
        let unbound_conf = unbound_conf(path, &net, port_v6, &anchors);
        fs::write(path.join("unbound.conf"), unbound_conf).unwrap();
        let unbound = ["-d", "-c", "unbound.conf"];
        let unbound = serve(path, "unbound", &unbound, "start of service");
        Lab {
            certificates,
            anchors,
            folder,
            net,
            port_v6,
            _servers: [nsd, unbound],
        }
    }
}

/// Addresses of the loopback interface that are this process's own: `127.A.B.0/24`.
struct Net {
    a: u8,
    b: u8,
    /// Held as a lock.
    _listener: TcpListener,
}

impl Net {
    /// The numbers come from the process, and the next are tried where they are taken.
    fn take() -> Net {
        let first = std::process::id() as u16;
        let (net, _) = (0..64)
            .map(|at| first.wrapping_add(at))
            .map(|number| (64 + (number >> 8) as u8 % 64, number as u8))
            .filter_map(|(a, b)| {
                let listener = TcpListener::bind((Ipv4Addr::new(127, a, b, 1), 53)).ok()?;
                let net = Net {
                    a,
                    b,
                    _listener: listener,
                };
                let free = TcpListener::bind((net.address(53), 53)).ok()?;
                Some((net, free))
            })
            .next()
            .expect("port 53 of 127.A.B.1 can be had; root is needed");
        net
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.a, self.b, last)
    }
}

/// Writes the zones, and returns the DS records of the root.
fn write_zones(zones: &[Zone], folder: &Path, net: &Net, certificates: &Certificates) -> String {
    let address = |last| net.address(last).to_string();
    let mut signed: Vec<(&Zone, String)> = Vec::new();
    for zone in zones {
        let children = signed
            .iter()
            .filter(|(child, _)| zone.is_parent_of(child, zones));
        let delegations: String = children
            .map(|(child, ds)| {
                let origin = child.origin();
                let server = address(53);
                format!("{origin} NS ns.{origin}\nns.{origin} A {server}\n{ds}")
            })
            .collect();
        let ds = zone.write(folder, &address, certificates, &delegations).ds;
        signed.push((zone, ds));
    }
    let (root, anchors) = signed.pop().expect("zones");
    assert_eq!(root.name, "");
    anchors
}

fn nsd_conf(zones: &[Zone], folder: &Path, net: &Net) -> String {
    let path = folder.display();
    let mut text = format!(
        "server:\n  ip-address: {}\n  port: 53\n  server-count: 1\n  username: \"\"\n  \
         zonesdir: \"{path}\"\n  zonelistfile: \"{path}/nsd.list\"\n  \
         xfrdfile: \"{path}/nsd.xfrd\"\n  xfrdir: \"{path}\"\n  pidfile: \"\"\n  \
         database: \"\"\n  verbosity: 2\nremote-control:\n  control-enable: no\n",
        net.address(53)
    );
    for zone in zones {
        let (origin, file) = (zone.origin(), zone.file(folder));
        let file = file.display();
        text += &format!("zone:\n  name: \"{origin}\"\n  zonefile: \"{file}\"\n");
    }
    text
}

fn unbound_conf(folder: &Path, net: &Net, port_v6: Option<u16>, anchors: &str) -> String {
    let server = net.address(53);
    fs::write(
        folder.join("hints"),
        format!(". 3600 NS ns.\nns. 3600 A {server}\n"),
    )
    .unwrap();
    let mut text = format!(
        "server:\n  directory: \"{}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  verbosity: 1\n  num-threads: 1\n  do-daemonize: no\n  \
         interface: {}@53\n  outgoing-interface: {}\n  access-control: 127.0.0.0/8 allow\n  \
         access-control: ::1 allow\n  do-not-query-localhost: no\n  root-hints: \"hints\"\n  \
         module-config: \"validator iterator\"\n  qname-minimisation: no\n",
        folder.display(),
        net.address(54),
        net.address(54),
    );
    if let Some(port) = port_v6 {
        text += &format!("  interface: ::1@{port}\n");
    }
    for anchor in anchors.lines() {
        text += &format!("  trust-anchor: \"{anchor}\"\n");
    }
    text + "remote-control:\n  control-enable: no\n"
}

/// Starts a server that ends when this process does, and waits until it logs that it is ready.
fn serve(folder: &Path, program: &str, arguments: &[&str], ready: &str) -> Child {
    // The pipe to the shell is closed when this process ends, however that happens.
    let script = r#"PATH=$PATH:/usr/sbin; "$@" 2>&1 & read -r _; kill $!; wait"#;
    let mut child = Command::new("sh")
        .args(["-c", script, "sh", program])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut log = String::new();
    loop {
        let Some(Ok(line)) = lines.next() else {
            panic!("{program} ended; run tests/mx/install.sh as root:\n{log}");
        };
        log += &(line.clone() + "\n");
        if line.contains(ready) {
            break;
        }
    }
    let is_error = |line: &str| line.contains("error") && !line.contains("missing.");
    assert!(!log.lines().any(is_error), "{log}");
    // Its log is read on, or it would wait for room in the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
