//! `--listen`: the health of the worker, metrics, and a page that resolves jobs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Form, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::commands::change;
use crate::failure::Failure;
use crate::job::{self, Job, is_id, rfc3339};
use crate::store::Store;
use crate::worker::{PauseReason, Totals};

/// The number of jobs of each state on the page.
const PAGE: usize = 100;
/// How long the store may take to answer /health.
const HEALTH: Duration = Duration::from_secs(5);

/// What the requests need.
struct Shared {
    store: Store,
    totals: Arc<Totals>,
    pause_reason: PauseReason,
    address: SocketAddr,
    /// Without it, no request changes a job.
    token: String,
}

/// Listens on an address. The returned future serves requests.
///
/// # Errors
///
/// The address is not valid, or cannot be listened on.
pub async fn start(
    address: &str,
    store: Store,
    totals: Arc<Totals>,
    pause_reason: PauseReason,
) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let address: SocketAddr = address.parse().map_err(|_| {
        Failure::request("--listen takes an IP address and a port")
            .with_hint("Such as 127.0.0.1:8025.")
    })?;
    let failed = |error| Failure::new(69, format!("--listen {address} is not possible: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    crate::report(&format!("listening on http://{address}/"), None);
    let mut token = [0; 32];
    getrandom::fill(&mut token)
        .map_err(|error| Failure::new(71, format!("no random numbers: {error}")))?;
    let shared = Arc::new(Shared {
        store,
        totals,
        pause_reason,
        address,
        token: token.iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    let router = Router::new()
        .route("/", get(page))
        .route("/resolve", post(resolve))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(4096))
        .layer(from_fn_with_state(shared.clone(), protect))
        .with_state(shared);
    Ok(async move {
        // It does not end by itself.
        let _ = serve(listener, router).await;
    })
}

/// Refuses requests under the name of another site (DNS rebinding) and those that another site
/// makes, and adds the headers that keep scripts and frames out.
async fn protect(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_allowed(headers, shared.address) {
        let text = "This name or origin is not known here.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let mut response = next.run(request).await;
    let added = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in added {
        response
            .headers_mut()
            .insert(name, value.parse().expect("a header value"));
    }
    response
}

/// The host must be the address that is listened on (any, where that is unspecified) or
/// `localhost`, as another name may be anyone's, with this port; the origin, if there is one, the
/// same.
fn is_allowed(headers: &HeaderMap, address: SocketAddr) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let (Some(host), 1) = (
        text(header::HOST),
        headers.get_all(header::HOST).iter().count(),
    ) else {
        return false;
    };
    let is_own = |named: SocketAddr| {
        let is_known = named.ip() == address.ip() || address.ip().is_unspecified();
        is_known && named.port() == address.port()
    };
    // Without a port, it is 80.
    let is_own = match (host.parse::<SocketAddr>(), host.rsplit_once(':')) {
        (Ok(named), _) => is_own(named),
        (_, Some((name, port))) if name.eq_ignore_ascii_case("localhost") => {
            port.parse() == Ok(address.port())
        }
        _ => {
            let name = host.trim_start_matches('[').trim_end_matches(']');
            match name.parse::<IpAddr>() {
                Ok(named) => is_own((named, 80).into()),
                Err(_) => name.eq_ignore_ascii_case("localhost") && address.port() == 80,
            }
        }
    };
    let origin = text(header::ORIGIN);
    is_own && origin.is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
}

/// 200 if the store answers, else 503.
async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match timeout(HEALTH, shared.store.counts()).await {
        Ok(Ok(_)) => "ok\n".into_response(),
        Ok(Err(error)) => unavailable(&error.to_string()),
        Err(_) => unavailable("the store does not answer"),
    }
}

fn unavailable(text: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")).into_response()
}

/// The jobs in each state of the store, and those that ended in this process, for Prometheus.
async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let counts = match shared.store.counts().await {
        Ok(counts) => counts,
        Err(error) => return unavailable(&error.to_string()),
    };
    let mut text =
        String::from("# HELP outbox_jobs Jobs in the store.\n# TYPE outbox_jobs gauge\n");
    for (state, number) in [
        ("waiting", counts.waiting),
        ("running", counts.running),
        ("sent", counts.sent),
        ("failed", counts.failed),
        ("unknown", counts.unknown),
    ] {
        text += &format!("outbox_jobs{{state=\"{state}\"}} {number}\n");
    }
    text += "# HELP outbox_ended_total Jobs that ended in this process.\n\
             # TYPE outbox_ended_total counter\n";
    let totals = &shared.totals;
    for (state, number) in [
        ("sent", &totals.sent),
        ("failed", &totals.failed),
        ("unknown", &totals.unknown),
    ] {
        let number = number.load(Ordering::Relaxed);
        text += &format!("outbox_ended_total{{state=\"{state}\"}} {number}\n");
    }
    let paused = u8::from(shared.pause_reason.get().is_some());
    text += &format!(
        "# HELP outbox_paused Whether the worker pauses, as no session can be had.\n\
         # TYPE outbox_paused gauge\noutbox_paused {paused}\n"
    );
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content, text).into_response()
}

/// Where the lists of the page begin.
#[derive(Deserialize)]
struct From {
    #[serde(default)]
    unknown: String,
    #[serde(default)]
    failed: String,
}

/// The page of unknown and failed jobs.
async fn page(State(shared): State<Arc<Shared>>, Query(from): Query<From>) -> Response {
    let store = &shared.store;
    let is_place = |text: &str| text.is_empty() || is_id(text);
    if !is_place(&from.unknown) || !is_place(&from.failed) {
        return (StatusCode::BAD_REQUEST, "There is no such id.\n").into_response();
    }
    let unknown = store.list(job::State::Unknown, &from.unknown, PAGE).await;
    let failed = store.list(job::State::Failed, &from.failed, PAGE).await;
    let (unknown, failed, counts) = match (unknown, failed, store.counts().await) {
        (Ok(unknown), Ok(failed), Ok(counts)) => (unknown, failed, counts),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            return unavailable(&error.to_string());
        }
    };
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Outbox</title>\
         <style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}\
         td,th{border:1px solid #999;padding:.4em;text-align:left;vertical-align:top}\
         form{display:inline}</style><h1>Outbox</h1>",
    );
    html += &format!(
        "<p>{} waiting, {} running, {} sent, {} failed, {} unknown</p>",
        counts.waiting, counts.running, counts.sent, counts.failed, counts.unknown
    );
    html += "<h2>Unknown</h2><p>Handed over, and no answer is known: find out whether the \
             recipients have the message.</p>";
    let buttons = [("sent", "They have it"), ("again", "Send again")];
    html += &table(&shared.token, &unknown, &buttons);
    html += &more("unknown", &unknown);
    html += "<h2>Failed</h2>";
    html += &table(&shared.token, &failed, &[("retry", "Try again")]);
    html += &more("failed", &failed);
    Html(html).into_response()
}

fn table(token: &str, jobs: &[Job], buttons: &[(&str, &str)]) -> String {
    if jobs.is_empty() {
        return "<p>None.</p>".to_owned();
    }
    let mut html =
        String::from("<table><tr><th>Job<th>Added<th>Recipients<th>Reason<th>Resolve</tr>");
    for job in jobs {
        let recipients = job.recipients.iter().map(|to| {
            let code = to.code.map(|code| format!(" {code}")).unwrap_or_default();
            let text = to.text.as_deref().unwrap_or_default();
            let outcome = to.outcome.public();
            format!("{} {outcome}{code} {}", escape(&to.address), escape(text))
        });
        let recipients = recipients.collect::<Vec<_>>().join("<br>");
        let buttons = buttons.iter().map(|(value, label)| {
            format!(
                "<form method=post action=/resolve>\
                 <input type=hidden name=token value=\"{token}\">\
                 <input type=hidden name=id value=\"{}\">\
                 <button name=action value={value}>{label}</button></form> ",
                escape(&job.id)
            )
        });
        html += &format!(
            "<tr><td>{}<br>{}<td>{}<td>{recipients}<td>{}<td>{}</tr>",
            escape(&job.id),
            escape(job.key.as_deref().unwrap_or_default()),
            rfc3339(job.added),
            escape(job.reason.as_deref().unwrap_or_default()),
            buttons.collect::<String>(),
        );
    }
    html + "</table>"
}

fn more(name: &str, jobs: &[Job]) -> String {
    match jobs.last() {
        Some(job) if jobs.len() == PAGE => {
            format!("<p><a href=\"/?{name}={}\">More</a></p>", escape(&job.id))
        }
        _ => String::new(),
    }
}

/// Text of users and servers, for an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// A button of the page.
#[derive(Deserialize)]
struct Action {
    token: String,
    id: String,
    action: String,
}

async fn resolve(State(shared): State<Arc<Shared>>, Form(form): Form<Action>) -> Response {
    if !is_equal(form.token.as_bytes(), shared.token.as_bytes()) {
        let text = "The page is of an earlier worker: load it again.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let (store, id) = (&shared.store, &form.id);
    let changed = match form.action.as_str() {
        "sent" => change(store, id, job::State::Unknown, |job| job.resolve(true)).await,
        "again" => change(store, id, job::State::Unknown, |job| job.resolve(false)).await,
        "retry" => change(store, id, job::State::Failed, Job::retry).await,
        _ => Err(Failure::request("there is no such action")),
    };
    match changed {
        Ok(()) => Redirect::to("/").into_response(),
        Err(failure) if failure.exit_code == 64 => {
            (StatusCode::CONFLICT, format!("{}\n", failure.message)).into_response()
        }
        Err(failure) => unavailable(&failure.message),
    }
}

/// Compares in a time that does not depend on where they differ.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differences == 0
}
