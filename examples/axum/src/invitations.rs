//! `POST /invitations`: sends a message, and answers with the outcome.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use envoi::mail_builder::MessageBuilder;
use envoi::{Error, ErrorKind, Mailbox, Message, Phase};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinError;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::App;

/// The body of the request.
#[derive(Deserialize)]
pub(crate) struct Invitation {
    /// Whom to invite, such as `Bob <bob@example.com>`.
    to: Mailbox,
}

pub(crate) async fn invite(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let reading = timeout(app.read, Json::from_request(request, &()));
    let Json(Invitation { to }) = reading.await??;
    let message = message(app.sender, to);
    // In a task of its own: it goes on when the client disconnects and axum drops this future. A
    // message that is given up halfway may have been delivered all the same, and the user who
    // reloads the page would send a second one.
    let sending = tokio::spawn(async move { app.mailer.send(message).await });
    let receipt = sending.await??;
    let body = json!({"status": "sent", "queue_id": receipt.queue_id()});
    Ok((StatusCode::OK, Json(body)).into_response())
}

fn message(from: Mailbox, to: Mailbox) -> Message<'static> {
    let greeting = to.name().unwrap_or("Hello").to_owned();
    let mail = MessageBuilder::new()
        .from(from)
        .to(to)
        .subject("Your invitation")
        .text_body(format!("{greeting},\n\nyou are invited.\n"));
    mail.into()
}

/// Why there is no invitation. The text is for the user of the service; envoi has logged the error,
/// with the host and the reply of the mail server.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    status: StatusCode,
    error: &'static str,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Failure {
            status,
            error,
            message,
        }
    }
}

impl From<Elapsed> for Failure {
    fn from(_: Elapsed) -> Self {
        let message = "The request took too long to arrive.";
        Failure::new(StatusCode::REQUEST_TIMEOUT, "request", message)
    }
}

impl From<JoinError> for Failure {
    /// The task has panicked.
    fn from(_: JoinError) -> Self {
        let message = "The invitation may have been sent.";
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Failure::new(rejection.status(), "request", rejection.body_text())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.outcome_unknown() {
            // Not 503: a client would try again.
            let message = "The invitation may have been sent. Ask before you send another one.";
            return Failure::new(StatusCode::GATEWAY_TIMEOUT, "unknown", message);
        }
        if error.is_transient() {
            let message = "The invitation was not sent. Try again later.";
            return Failure::new(StatusCode::SERVICE_UNAVAILABLE, "try-later", message);
        }
        if error.kind() == ErrorKind::Refused && error.phase() == Phase::Rcpt {
            let message = "Mail to this address is refused.";
            return Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "recipient", message);
        }
        let message = "The invitation was not sent: the mail server refuses it.";
        Failure::new(StatusCode::BAD_GATEWAY, "mail-server", message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "message": self.message});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("60"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use envoi::testing::Recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::Value;
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{Health, router};

    fn app(recorder: &Recorder) -> App {
        App {
            mailer: Arc::new(recorder.clone()),
            sender: "The shop <shop@example.org>".parse().unwrap(),
            read: Duration::from_secs(5),
            health: watch::channel(Health::Starting).1,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        }
    }

    async fn post(app: App, body: impl Into<Body>) -> Response {
        let request = Request::post("/invitations")
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        router(app).oneshot(request).await.unwrap()
    }

    async fn invite(recorder: &Recorder, body: &str) -> (StatusCode, Value) {
        let response = post(app(recorder), body.to_owned()).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    const BOB: &str = r#"{"to": "Bob <bob@example.com>"}"#;

    #[tokio::test]
    async fn an_invitation_is_sent() {
        let recorder = Recorder::new();
        let (status, body) = invite(&recorder, BOB).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("sent")));
        let message = &recorder.messages()[0];
        message.assert_recipients(["bob@example.com"]);
        message.assert_contains("Bob,\r\n\r\nyou are invited.");
        message.assert_contains("\"The shop\" <shop@example.org>");
    }

    #[tokio::test]
    async fn a_request_that_is_wrong_sends_nothing() {
        let recorder = Recorder::new();
        for (body, status) in [
            ("{", 400),
            (r#"{"to": "no at sign"}"#, 422),
            (r#"{"to": "Bob\r\nBcc: <carol@example.com>"}"#, 422),
            (&format!(r#"{{"to": "{}"}}"#, "a".repeat(20_000)), 413),
        ] {
            let (found, answer) = invite(&recorder, body).await;
            assert_eq!(
                (found.as_u16(), &answer["error"]),
                (status, &json!("request"))
            );
        }
        assert!(recorder.messages().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_times_out() {
        let never = Body::from_stream(futures::stream::pending::<std::io::Result<Vec<u8>>>());
        let response = post(app(&Recorder::new()), never).await;
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn each_failure_has_its_status() {
        let recorder = Recorder::new();
        let refused = |phase, reply: &str| {
            let error = Error::new(ErrorKind::Refused, phase, "refused");
            error.with_reply(reply.parse().unwrap())
        };
        let lost = Error::new(ErrorKind::Closed, Phase::EndOfData, "closed");
        for (error, status, name) in [
            (refused(Phase::Rcpt, "550 5.1.1 Unknown"), 422, "recipient"),
            (refused(Phase::Rcpt, "451 4.7.1 Later"), 503, "try-later"),
            (
                refused(Phase::Mail, "550 5.7.1 Not you"),
                502,
                "mail-server",
            ),
            (lost.clone(), 503, "try-later"),
            (lost.with_outcome_unknown(true), 504, "unknown"),
            (
                Error::new(ErrorKind::PoolClosed, Phase::Setup, "closed"),
                503,
                "try-later",
            ),
        ] {
            recorder.fail_next(error);
            let (found, body) = invite(&recorder, BOB).await;
            assert_eq!((found.as_u16(), &body["error"]), (status, &json!(name)));
            // Nothing of the mail server is shown to the public.
            assert!(!body.to_string().contains("5.7.1"), "{body}");
        }
        recorder.fail_with(Error::new(ErrorKind::Connect, Phase::Connect, "no route"));
        let response = post(app(&recorder), BOB).await;
        assert_eq!(response.headers()["retry-after"], "60");
    }
}
