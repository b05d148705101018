//! Examines a mail server without sending a message. `probe --help` lists the options; the exit
//! code says whether the server can be used.
//!
//!     cargo run --example probe -- mail.example.org
//!     cargo run --example probe -- --url smtps://alice%40example.org@mail.example.org \
//!         --password-file secret.txt
//!
//! [`endpoint`] collects the settings for `envoi::probe`, which does the work.

mod domain;
#[path = "../password/mod.rs"]
mod password;
mod report;
#[path = "../resolver/mod.rs"]
mod resolver;
#[path = "../trust/mod.rs"]
mod trust;

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use envoi::proto::ClientName;
use envoi::tls::Trust;
use envoi::{Endpoint, Timeouts};
use serde_json::Value;

use report::Failure;

/// Examines a mail server without sending a message: its ports, capabilities, TLS, certificates
/// and the login.
///
/// The exit code is 0 if a port can be used. Otherwise it is the reason for the best port: 64 for a
/// bad request, 66 for an input file that cannot be read, 69 for a refusal, 73 for a file that
/// cannot be written, 75 for no answer and other transient failures, 76 for TLS, certificates and
/// protocol violations, 77 for the login, 78 for an unreadable trust store.
#[derive(Parser)]
#[command(name = "probe", version)]
struct Options {
    /// The server; an IPv6 address in brackets. Without a port, 25, 465 and 587 are tried
    #[arg(value_name = "HOST[:PORT]", required_unless_present_any = ["url", "mx"])]
    host: Option<String>,
    /// The server as a URL; with a user and a password, the login is tried, inside verified TLS
    /// only
    #[arg(long)]
    url: Option<String>,
    /// A file with the password of the user in the URL; a line end at the end of the file is
    /// ignored
    #[arg(long, value_name = "FILE", requires = "url")]
    password_file: Option<PathBuf>,

    /// Examine a domain instead: what it publishes for those who send it mail, and whether its
    /// servers meet it. 0 if nothing needs to change, 75 if a lookup failed, else 69
    #[arg(
        long,
        value_name = "DOMAIN",
        conflicts_with_all = ["host", "url", "save_chain", "helo"],
        conflicts_with_all = ["trust_password", "trust_password_file"]
    )]
    mx: Option<String>,
    /// The selector whose DKIM key is looked up
    #[arg(long, value_name = "NAME")]
    selector: Option<String>,
    /// The resolver to ask in place of the system's: 192.0.2.53:53 or [2001:db8::53]:53; the port
    /// may be left out
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<String>,
    /// A file with the keys that DNSSEC is validated from, DS or DNSKEY records, in place of the
    /// root's
    #[arg(long, value_name = "FILE")]
    dnssec_anchor: Option<PathBuf>,

    /// Trust the certificates of these files or folders, and no others
    #[arg(long, value_name = "FILE", num_args = 1)]
    trust: Vec<PathBuf>,
    /// Trust the system's store as well
    #[arg(long)]
    system_trust: bool,
    /// The password of a trust store (PKCS#12, JKS)
    #[arg(long, value_name = "PASSWORD")]
    trust_password: Option<String>,
    /// A file with that password, its first line
    #[arg(long, value_name = "FILE", conflicts_with = "trust_password")]
    trust_password_file: Option<PathBuf>,

    /// The limit of each step; a port may take four times as long. The default is 10 seconds
    #[arg(long, value_name = "SECS")]
    timeout: Option<String>,
    /// The client name in EHLO; by default the address of this machine
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,

    /// Write the certificates of the server to a file (PEM), for its administrator to check
    #[arg(long, value_name = "FILE")]
    save_chain: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    let code = match Options::try_parse_from(&args) {
        Ok(options) => run(&options).await,
        // clap returns --help and --version as errors.
        Err(asked) if asked.exit_code() == 0 => asked.exit(),
        Err(error) => Err(explain(&error)),
    };
    let code = code.unwrap_or_else(|failure| report::print_failure(&failure, form(&args)));
    // Returning from `main` would wait for a thread that still resolves a name.
    std::process::exit(code.into());
}

/// The JSON of a failure, if it is wanted: within the form of the report that was asked for. The
/// arguments may not have been understood.
fn form(args: &[OsString]) -> Option<fn(Value) -> Value> {
    let has = |option: &str| args.iter().any(|arg| arg == option);
    let is_mx = |arg: &OsString| arg.to_string_lossy().starts_with("--mx=");
    let is_of_domain = has("--mx") || args.iter().any(is_mx);
    has("--json").then_some(match is_of_domain {
        true => domain::no_report,
        false => report::no_report,
    })
}

async fn run(options: &Options) -> Result<u8, Failure> {
    if let Some(domain) = &options.mx {
        return domain::run(domain, options).await;
    }
    // clap does not require --mx beside a host, as the two exclude each other.
    let of_mx = [
        options.selector.is_some(),
        options.resolver.is_some(),
        options.dnssec_anchor.is_some(),
    ];
    if of_mx.contains(&true) {
        return Err(Failure::request(
            "--selector, --resolver and --dnssec-anchor are for --mx",
        ));
    }
    let report = envoi::probe(&endpoint(options)?).await?;
    let pem = report.certificates_pem();
    let saved = match &options.save_chain {
        Some(path) if !pem.is_empty() => std::fs::write(path, &pem),
        _ => Ok(()),
    };
    report::print(&report, options.json);
    saved
        .map_err(|error| Failure::unwritable(format!("--save-chain cannot be written: {error}")))?;
    if !options.json {
        let all_verified = report
            .ports
            .iter()
            .flat_map(|port| &port.tls)
            .all(|tls| tls.is_verified());
        report::write_stdout(match &options.save_chain {
            Some(_) if pem.is_empty() => {
                "\nNo certificates were saved: the server sent none.\n".into()
            }
            Some(path) => format!(
                "\nThe certificates that the server sent are in {}.\n",
                path.display()
            ),
            None if all_verified => String::new(),
            None => "\nTo have the certificates checked that the server sent: --save-chain FILE.\n"
                .into(),
        });
    }
    Ok(report::exit_code(&report))
}

fn endpoint(options: &Options) -> Result<Endpoint, Failure> {
    let mut endpoint = match (&options.url, &options.host) {
        (Some(url), None) => Endpoint::from_url(url)?,
        (Some(url), Some(host)) => {
            let (endpoint, place) = (Endpoint::from_url(url)?, place(host)?);
            if !endpoint.host().eq_ignore_ascii_case(place.host()) {
                return Err(Failure::request(
                    "the URL is for another host than the one to look at",
                ));
            }
            match port_of(host) {
                Some(port) => endpoint.port(port),
                None => endpoint,
            }
        }
        (None, host) => place(host.as_deref().unwrap_or_default())?,
    };
    let timeout = options.timeout.as_deref().map(timeout).transpose()?;
    let most = Duration::from_secs(5);
    // The limit for reading all password files.
    let until = Instant::now() + timeout.unwrap_or(most).min(most);
    let inputs = [&options.password_file, &options.trust_password_file];
    if inputs
        .iter()
        .all(|path| path.as_deref().is_some_and(password::is_stdin))
    {
        return Err(Failure::request(
            "only one option may read standard input (-)",
        ));
    }
    if let Some(path) = &options.password_file {
        let failure = |error| Failure::input(password::unreadable("--password-file", &error));
        endpoint = endpoint.password(password::read(path, until).map_err(failure)?);
    }
    if !options.trust.is_empty() {
        endpoint = endpoint.trust(options.trust.iter().fold(Trust::empty(), Trust::path));
    }
    if options.system_trust {
        endpoint = endpoint.system_trust();
    }
    if let Some(password) = &options.trust_password {
        endpoint = endpoint.trust_password(password);
    }
    if let Some(path) = &options.trust_password_file {
        let failure =
            |error| Failure::config(password::unreadable("--trust-password-file", &error));
        endpoint = endpoint.trust_password(password::read(path, until).map_err(failure)?);
    }
    trust::check(endpoint.get_tls().get_trust())?;
    if let Some(name) = &options.helo {
        endpoint = endpoint.client_name(ClientName::new(name)?);
    }
    if let Some(timeout) = timeout {
        endpoint = endpoint.timeouts(Timeouts::uniform(timeout));
    }
    Ok(endpoint)
}

fn timeout(seconds: &str) -> Result<Duration, Failure> {
    // About thirty years.
    let seconds = seconds
        .parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    let seconds =
        seconds.ok_or_else(|| Failure::request("--timeout takes a number of seconds above 0"))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses `HOST[:PORT]`, a URL without its scheme, or an IPv6 address without brackets.
fn place(host: &str) -> Result<Endpoint, Failure> {
    if host.parse::<Ipv6Addr>().is_ok() {
        return Ok(Endpoint::new(host));
    }
    if host.contains(['/', '?', '#', '@']) {
        // Not shown: it may contain a password.
        return Err(Failure::request(
            "a host is wanted, or HOST:PORT; a URL is given with --url",
        ));
    }
    Ok(Endpoint::from_url(&format!("smtp://{host}"))?)
}

/// The port, if `host` has one.
fn port_of(host: &str) -> Option<u16> {
    let (before, port) = host.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!before.contains(':') || before.ends_with(']')).then_some(port)
}

/// Describes an error of clap, whose own messages repeat the arguments, possibly with a password.
fn explain(error: &clap::Error) -> Failure {
    use clap::error::ErrorKind;
    let what = error
        .kind()
        .as_str()
        .unwrap_or("the command line is not understood")
        .to_lowercase();
    // For an unknown argument this is the user's text, otherwise the name of an option.
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) if error.kind() != ErrorKind::UnknownArgument => {
            format!(": {name}")
        }
        Some(ContextValue::Strings(names)) => format!(": {}", names.join(", ")),
        _ => String::new(),
    };
    Failure::request(format!("{what}{option}")).with_hint("All options are in --help.")
}
