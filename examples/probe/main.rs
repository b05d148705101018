//! Looks at a mail server without sending anything: `probe --help` says how, the exit code whether
//! it can be used.
//!
//!     cargo run --example probe -- mail.example.org
//!     cargo run --example probe -- --url smtps://alice%40example.org@mail.example.org --password-file secret.txt
//!
//! The whole of it is `envoi::probe`, to which [`endpoint`] gives the settings.

#[path = "../password/mod.rs"]
mod password;
mod report;

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use envoi::proto::ClientName;
use envoi::tls::Trust;
use envoi::{Endpoint, Timeouts};

use report::Failure;

/// Looks at a mail server without sending anything: its ports, what they offer, TLS, certificates
/// and the login.
///
/// The exit code is 0 when a port can be used. Otherwise it tells why the best one cannot: 64 for a
/// bad request, 69 for a refusal, 73 for a file that cannot be written, 75 when nobody answers or
/// it may pass, 76 for TLS, certificates and protocol, 77 for the login, 78 for a trust store that
/// cannot be read.
#[derive(Parser)]
#[command(name = "probe", version)]
struct Options {
    /// The server; an IPv6 address stands in brackets. Without a port, 25, 465 and 587 are tried
    #[arg(value_name = "HOST[:PORT]", required_unless_present = "url")]
    host: Option<String>,
    /// The server as a URL; with a user and a password, the login is tried, inside verified TLS
    /// only
    #[arg(long)]
    url: Option<String>,
    /// A file with the password of the user in the URL; one line end at its end does not belong to
    /// it
    #[arg(long, value_name = "FILE", requires = "url")]
    password_file: Option<PathBuf>,

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

    /// Limit each step, and a port to four times as much; 10 seconds by default
    #[arg(long, value_name = "SECS")]
    timeout: Option<String>,
    /// The name to give to the server; by default the address of this machine
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,

    /// Write the certificates that the server sent to a file (PEM), for its administrator to check
    #[arg(long, value_name = "FILE")]
    save_chain: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    let (code, as_json) = match Options::try_parse_from(&args) {
        Ok(options) => (run(&options).await, options.json),
        // --help and --version come as errors, too.
        Err(asked) if asked.exit_code() == 0 => asked.exit(),
        Err(error) => (Err(explain(&error)), args.iter().any(|arg| arg == "--json")),
    };
    let code = code.unwrap_or_else(|failure| report::print_failure(&failure, as_json));
    // Not by returning: that would wait for a thread that still looks up a name.
    std::process::exit(code.into());
}

async fn run(options: &Options) -> Result<u8, Failure> {
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
    // Together, the ends of the files with passwords are waited for no longer.
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
    if let Some(name) = &options.helo {
        endpoint = endpoint.client_name(ClientName::new(name)?);
    }
    if let Some(timeout) = timeout {
        endpoint = endpoint.timeouts(Timeouts::uniform(timeout));
    }
    Ok(endpoint)
}

fn timeout(seconds: &str) -> Result<Duration, Failure> {
    // Thirty years are more than anybody waits.
    let seconds = seconds
        .parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    let seconds =
        seconds.ok_or_else(|| Failure::request("--timeout takes a number of seconds above 0"))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// `HOST[:PORT]`, which is a URL without its scheme, or an IPv6 address without brackets.
fn place(host: &str) -> Result<Endpoint, Failure> {
    if host.parse::<Ipv6Addr>().is_ok() {
        return Ok(Endpoint::new(host));
    }
    if host.contains(['/', '?', '#', '@']) {
        // It is not shown: there may be a password in it.
        return Err(Failure::request(
            "a host is wanted, or HOST:PORT; a URL is given with --url",
        ));
    }
    Ok(Endpoint::from_url(&format!("smtp://{host}"))?)
}

/// The port, of a host that is one.
fn port_of(host: &str) -> Option<u16> {
    let (before, port) = host.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!before.contains(':') || before.ends_with(']')).then_some(port)
}

/// Says what clap found. Its own messages repeat what was given, and so perhaps a password.
fn explain(error: &clap::Error) -> Failure {
    use clap::error::ErrorKind;
    let what = error
        .kind()
        .as_str()
        .unwrap_or("the command line is not understood")
        .to_lowercase();
    // Of an unknown argument this is what the user wrote, else the name of an option.
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) if error.kind() != ErrorKind::UnknownArgument => {
            format!(": {name}")
        }
        Some(ContextValue::Strings(names)) => format!(": {}", names.join(", ")),
        _ => String::new(),
    };
    Failure::request(format!("{what}{option}")).with_hint("All options are in --help.")
}
