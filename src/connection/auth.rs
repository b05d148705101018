//! The login: which mechanism, and which one next.

use std::collections::VecDeque;
use std::pin::pin;

use tokio::time::timeout_at;

use super::call::CallGuard;
use super::fallback::{Reason, may_follow};
use super::{Connection, not_sent};
use crate::config::endpoint::Endpoint;
use crate::config::login::{self, LoginWith};
use crate::config::token::{TokenRequest, TokenSource};
use crate::diagnose::{self, Facts};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{Event, Mechanism, Reply, SaslExchange, Step};
use crate::text::quoted;
use crate::tls::channel_binding;
use crate::transport::Transport;
use crate::{Credentials, telemetry};

impl Connection {
    /// Logs in with `mechanism`, or with the best one that both sides support and that suits the
    /// credentials.
    ///
    /// # Which mechanism is tried next
    ///
    /// If the server rejects the mechanism and not the password, the next mechanism is tried. If an
    /// exchange breaks inside verified TLS, the next mechanism is also tried, but only one that
    /// does not reveal the password. The login ends
    ///
    /// - if the server rejects the user, the password or the token;
    /// - if the server does not prove its identity, as SCRAM requires: a foreign nonce, a wrong
    ///   signature, too few rounds of hashing, another TLS connection;
    /// - after a mechanism with -PLUS, which is bound to the TLS connection, for any reason (RFC
    ///   5802, 6), unless the mechanisms to use [were named](crate::Endpoint::mechanisms).
    ///
    /// An attacker between client and server whose certificate is trusted can offer and refuse any
    /// mechanism. It gets the password by offering only PLAIN or LOGIN, or by rejecting every
    /// mechanism that does not reveal the password as unknown. It gains nothing by breaking an
    /// exchange. An attacker cannot relay a -PLUS login. If it removes -PLUS from the offer, SCRAM
    /// lets the real server detect that, unless channel binding is unavailable (TLS 1.2 with a
    /// certificate signed by Ed25519 or RSASSA-PSS). To prevent all of this, name the mechanism:
    /// `auth=SCRAM-SHA-256-PLUS` in the URL, or
    /// [`Endpoint::mechanism`](crate::Endpoint::mechanism).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Insecure`] if the connection does not protect the credentials;
    /// [`ErrorKind::Auth`] if no mechanism can be used, or the server refuses the login or does not
    /// prove its identity; [`ErrorKind::Request`] if the mechanism cannot use the credentials.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn login(
        &mut self,
        mechanism: Option<Mechanism>,
        credentials: &Credentials,
    ) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let order = mechanism.map_or_else(|| call.mechanisms.clone(), |mechanism| vec![mechanism]);
        let result = call.try_mechanisms(&order, credentials).await;
        call.complete_with(result)
    }

    /// Logs in with a mechanism that is implemented by the caller.
    ///
    /// # Errors
    ///
    /// As for [`login`](Self::login).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn login_with(&mut self, exchange: impl SaslExchange + 'static) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let result = call.login_by_exchange(Box::new(exchange)).await;
        call.complete_with(result)
    }

    /// Logs in as the endpoint says, if it has credentials.
    pub(crate) async fn log_in(&mut self, endpoint: &Endpoint) -> Result<()> {
        let Some(with) = endpoint.login.chosen()? else {
            return Ok(());
        };
        let logging_in = async {
            match with {
                LoginWith::Credentials(credentials) => {
                    self.try_mechanisms(&endpoint.login.mechanisms, &credentials)
                        .await
                }
                LoginWith::File {
                    user,
                    file,
                    is_token,
                } => {
                    let credentials = login::credentials(user, file.read().await?, is_token);
                    self.try_mechanisms(&endpoint.login.mechanisms, &credentials)
                        .await
                }
                LoginWith::Exchange(exchanges) => self.login_by_exchange(exchanges()).await,
                LoginWith::Tokens { user, source } => {
                    match self
                        .login_with_token(endpoint, user, source, TokenRequest::Current)
                        .await
                    {
                        Err(error) if is_stale(&error) => {
                            self.login_with_token(endpoint, user, source, TokenRequest::Fresh)
                                .await
                        }
                        outcome => outcome,
                    }
                }
            }
        };
        let result = telemetry::in_span("login", &endpoint.server, pin!(logging_in)).await;
        result
            .map(|_| ())
            .map_err(|error| error.advised(&self.facts()))
    }

    /// Logs in with a token. Of the time limits, only the deadline holds for the source of the
    /// token.
    async fn login_with_token(
        &mut self,
        endpoint: &Endpoint,
        user: &str,
        source: &TokenSource,
        request: TokenRequest,
    ) -> Result<Reply> {
        let limit = self.driver.clock.body_limit(None, &self.driver.timeouts);
        let token = timeout_at(limit.at, source.ask(request))
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    Phase::Auth,
                    "no token to log in with was given before the deadline",
                ))
            })?;
        self.try_mechanisms(&endpoint.login.mechanisms, &Credentials::token(user, token))
            .await
    }

    /// Logs in with one of these mechanisms, tried in this order; if there are none, with one of
    /// all.
    async fn try_mechanisms(
        &mut self,
        order: &[Mechanism],
        credentials: &Credentials,
    ) -> Result<Reply> {
        self.prepare_login().await?;
        self.user = credentials.user().to_owned();
        let usable = self.driver.machine.mechanisms(credentials);
        let mut tried = match order {
            [] => usable,
            // If it cannot be used, the machine's error says why.
            [only] => vec![*only],
            order => order
                .iter()
                .copied()
                .filter(|mechanism| usable.contains(mechanism))
                .collect(),
        };
        let offered = self.driver.machine.capabilities().auth();
        if tried.is_empty() {
            // The machine's error says why a suitable one cannot be used, or that no login is
            // offered at all.
            let suits = |mechanism: &Mechanism| {
                let is_allowed = order.is_empty() || order.contains(mechanism);
                is_allowed
                    && mechanism.is_built()
                    && is_offered(*mechanism, &offered)
                    && mechanism.suits(credentials)
            };
            let suitable = Mechanism::ALL.iter().copied().find(suits);
            tried.extend(suitable.or(offered.is_empty().then_some(Mechanism::Plain)));
        }
        let is_named = !order.is_empty();
        let is_verified = self.tls().is_some_and(|tls| tls.is_verified());
        let mut refused: Option<Error> = None;
        let mut names = String::new();
        let mut left = VecDeque::from(tried);
        while let Some(mechanism) = left.pop_front() {
            self.driver.machine.login(mechanism, credentials)?;
            names += &if names.is_empty() {
                mechanism.to_string()
            } else {
                format!(" or {mechanism}")
            };
            match self
                .run_login(mechanism, &names, credentials.user())
                .await?
            {
                LoginResult::Accepted(reply) => return Ok(reply),
                LoginResult::Refused(error, reason) => {
                    left.retain(|next| may_follow(*next, mechanism, reason, is_named, is_verified));
                    refused = Some(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| nothing_in_common(order, credentials, &offered)))
    }

    async fn login_by_exchange(&mut self, exchange: Box<dyn SaslExchange>) -> Result<Reply> {
        self.prepare_login().await?;
        let mechanism = exchange.mechanism();
        self.driver.machine.login_with(exchange)?;
        match self.run_login(mechanism, mechanism.as_str(), "").await? {
            LoginResult::Accepted(reply) => Ok(reply),
            LoginResult::Refused(error, _) => Err(error),
        }
    }

    /// Waits for the result of a login. `names` has all mechanisms that were tried.
    async fn run_login(
        &mut self,
        mechanism: Mechanism,
        names: &str,
        user: &str,
    ) -> Result<LoginResult> {
        match self.driver.next(None).await? {
            Step::Event(Event::Login { reply, .. }) if reply.is_positive() => {
                self.info_mut().mechanism = Some(mechanism);
                Ok(LoginResult::Accepted(reply))
            }
            Step::Event(Event::Login {
                reply,
                reason,
                fault,
            }) => {
                let why = Reason::new(&reply, reason.is_some(), fault);
                let whose = if user.is_empty() {
                    String::new()
                } else {
                    format!(" of {}", quoted(user))
                };
                let message = match reason {
                    Some(reason) => format!("the login{whose} with {mechanism} failed: {reason}"),
                    None => format!("the server did not accept the login{whose} with {names}"),
                };
                let about_mechanism = matches!(why, Reason::NotKnown | Reason::NotAllowed);
                let facts = Facts {
                    tried: Some(mechanism),
                    fault,
                    about_mechanism,
                    ..self.facts()
                };
                let error =
                    Error::refused(ErrorKind::Auth, Phase::Auth, message, reply).advised(&facts);
                Ok(LoginResult::Refused(error, why))
            }
            step => Err(not_sent(step)),
        }
    }

    /// Prepares a login: waits until the machine is ready, checks that the credentials are
    /// protected, and binds the login to the TLS connection.
    async fn prepare_login(&mut self) -> Result<()> {
        self.driver.until_ready().await?;
        if let Some(tls) = self.tls()
            && !tls.is_verified()
            && !self.auth_in_clear
        {
            let message = "the credentials would go to a server whose certificate was not verified";
            return Err(Error::new(ErrorKind::Insecure, Phase::Auth, message)
                .with_hint(diagnose::UNVERIFIED));
        }
        if let Transport::Tls(stream) = &self.driver.transport
            && let Some(channel) = channel_binding(stream.get_ref().1)
        {
            self.driver.machine.set_channel_binding(channel);
        }
        Ok(())
    }
}

/// The result of one attempt to log in.
enum LoginResult {
    Accepted(Reply),
    Refused(Error, Reason),
}

/// The server refused the token, and a fresh one may be accepted. A token with insufficient scope
/// (RFC 6750, 3.1) would be refused again.
fn is_stale(error: &Error) -> bool {
    error.kind() == ErrorKind::Auth
        && error.reply().is_some_and(|reply| reply.code() == 535)
        && !error.message().contains("insufficient_scope")
}

fn is_offered(mechanism: Mechanism, offered: &[String]) -> bool {
    offered.iter().any(|name| name == mechanism.as_str())
}

fn nothing_in_common(order: &[Mechanism], credentials: &Credentials, offered: &[String]) -> Error {
    let wanted: Vec<&str> = order.iter().map(|mechanism| mechanism.as_str()).collect();
    let wanted = if wanted.is_empty() {
        String::new()
    } else {
        format!(", and allowed are {}", wanted.join(", "))
    };
    let offers = offered.join(", ");
    let message =
        format!("no mechanism in common for these credentials: the server offers {offers}{wanted}");
    let missing = Mechanism::ALL
        .iter()
        .filter(|mechanism| is_offered(**mechanism, offered) && mechanism.suits(credentials))
        .find_map(|mechanism| Some((mechanism, mechanism.missing_feature()?)));
    let error = Error::new(ErrorKind::Auth, Phase::Auth, message);
    if let Some((mechanism, feature)) = missing {
        return error.with_hint(format!(
            "For {mechanism}, build envoi with its feature `{feature}`."
        ));
    }
    let suitable = Mechanism::ALL
        .iter()
        .copied()
        .filter(|mechanism| mechanism.is_built() && mechanism.suits(credentials));
    let names: Vec<&str> = suitable.map(Mechanism::as_str).collect();
    error.with_hint(format!(
        "These credentials log in with {}: ask the server's administrator to switch one of them \
            on.",
        names.join(", ")
    ))
}
