//! Logging in: which mechanism, and which next.

use tokio::time::timeout_at;

use super::{Connection, not_sent};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::hint::{self, Facts};
use crate::login::LoginWith;
use crate::proto::{Mechanism, Reply, SaslExchange, Step};
use crate::token::{TokenRequest, TokenSource};
use crate::{Credentials, trace};

impl Connection {
    /// Logs in, with the mechanism given or the best one that both sides know and the credentials fit. Where the server says that the mechanism
    /// is wrong, and not the password, the next one is tried.
    ///
    /// # Errors
    ///
    /// [`Kind::Insecure`], where the connection does not protect the credentials; [`Kind::Auth`], where no mechanism can be used, the
    /// server refuses, or cannot prove who it is; [`Kind::Request`] for credentials that the mechanism does not take.
    pub async fn login(&mut self, mechanism: Option<Mechanism>, credentials: &Credentials) -> Result<Reply> {
        self.begin_step()?;
        let order = mechanism.map_or_else(|| self.mechanisms.clone(), |mechanism| vec![mechanism]);
        let result = self.login_with(&order, credentials).await;
        self.end_call(result)
    }

    /// Logs in by a mechanism of another maker.
    ///
    /// # Errors
    ///
    /// As for [`login`](Self::login).
    pub async fn login_by(&mut self, exchange: impl SaslExchange + 'static) -> Result<Reply> {
        self.begin_step()?;
        let result = self.login_by_exchange(Box::new(exchange)).await;
        self.end_call(result)
    }

    /// As the endpoint says.
    pub(crate) async fn log_in(&mut self, endpoint: &Endpoint) -> Result<()> {
        let Some(with) = endpoint.login.chosen()? else { return Ok(()) };
        let logging_in = async {
            match with {
                LoginWith::Credentials(credentials) => self.login_with(&endpoint.login.mechanisms, &credentials).await,
                LoginWith::Exchange(exchanges) => self.login_by_exchange(exchanges()).await,
                LoginWith::Tokens { user, source } => {
                    match self.login_with_token(endpoint, user, source, TokenRequest::Current).await {
                        Err(error) if is_stale(&error) => {
                            self.login_with_token(endpoint, user, source, TokenRequest::Fresh).await
                        }
                        outcome => outcome,
                    }
                }
            }
        };
        let result = trace::step("login", &endpoint.server_name(), logging_in).await;
        result.map(|_| ()).map_err(|error| error.advised(&self.facts()))
    }

    /// The token's source takes its own time: of the limits, only the deadline is one for it.
    async fn login_with_token(
        &mut self,
        endpoint: &Endpoint,
        user: &str,
        source: &TokenSource,
        request: TokenRequest,
    ) -> Result<Reply> {
        let limit = self.driver.clock.body_limit(None, &self.driver.timeouts);
        let token = timeout_at(limit.at, source.ask(request)).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Timeout, Phase::Auth, "no token to log in with was given before the deadline"))
        })?;
        self.login_with(&endpoint.login.mechanisms, &Credentials::token(user, token)).await
    }

    /// With one of these mechanisms, in this order; without any, with those that there are.
    async fn login_with(&mut self, order: &[Mechanism], credentials: &Credentials) -> Result<Reply> {
        self.require_protection().await?;
        let usable = self.driver.machine.mechanisms(credentials);
        let mut tried = match order {
            [] => usable,
            // Whether it can be used, the machine says better.
            [only] => vec![*only],
            order => order.iter().copied().filter(|mechanism| usable.contains(mechanism)).collect(),
        };
        let offered = self.driver.machine.capabilities().auth();
        if tried.is_empty() {
            // The machine says why this one cannot be used, if one is of the right sort, and if no login is offered at all.
            let suits = |mechanism: &Mechanism| {
                let is_allowed = order.is_empty() || order.contains(mechanism);
                is_allowed && mechanism.is_built() && is_offered(*mechanism, &offered) && mechanism.suits(credentials)
            };
            let suitable = Mechanism::ALL.into_iter().find(suits);
            tried.extend(suitable.or(offered.is_empty().then_some(Mechanism::Plain)));
        }
        let mut refused: Option<(Mechanism, Error)> = None;
        let mut names = String::new();
        for mechanism in tried {
            if let Some((before, error)) = &refused
                && !error.reply().is_some_and(|reply| is_worth_another(reply, *before, mechanism))
            {
                continue;
            }
            self.driver.machine.login(mechanism, credentials)?;
            names += &if names.is_empty() { mechanism.to_string() } else { format!(" or {mechanism}") };
            match self.verdict(mechanism, &names, credentials.user()).await? {
                Verdict::Accepted(reply) => return Ok(reply),
                Verdict::WrongMechanism(error) => refused = Some((mechanism, error)),
                Verdict::Refused(error) => return Err(error),
            }
        }
        Err(refused.map_or_else(|| nothing_in_common(order, credentials, &offered), |(_, error)| error))
    }

    async fn login_by_exchange(&mut self, exchange: Box<dyn SaslExchange>) -> Result<Reply> {
        self.require_protection().await?;
        let mechanism = exchange.mechanism();
        self.driver.machine.login_by(exchange)?;
        match self.verdict(mechanism, mechanism.as_str(), "").await? {
            Verdict::Accepted(reply) => Ok(reply),
            Verdict::WrongMechanism(error) | Verdict::Refused(error) => Err(error),
        }
    }

    /// `names` are all that were tried.
    async fn verdict(&mut self, mechanism: Mechanism, names: &str, user: &str) -> Result<Verdict> {
        match self.driver.next(None).await? {
            Step::Login { reply, .. } if reply.is_positive() => {
                self.auth = Some(mechanism);
                Ok(Verdict::Accepted(reply))
            }
            Step::Login { reply, reason } => {
                // Where the exchange itself failed, the password is not shown to whoever is at the other end instead.
                let is_about_mechanism = reason.is_none() && is_about_mechanism(&reply);
                let whose = if user.is_empty() { String::new() } else { format!(" of {user:?}") };
                let message = match reason {
                    Some(reason) => format!("the login{whose} with {mechanism} failed: {reason}"),
                    None => format!("the server did not accept the login{whose} with {names}"),
                };
                let facts = Facts { tried: Some(mechanism), ..self.facts() };
                let error = Error::refused(Kind::Auth, Phase::Auth, message, reply).advised(&facts);
                Ok(if is_about_mechanism { Verdict::WrongMechanism(error) } else { Verdict::Refused(error) })
            }
            step => Err(not_sent(step)),
        }
    }

    async fn require_protection(&mut self) -> Result<()> {
        self.driver.until_ready().await?;
        if let Some(tls) = &self.tls
            && !tls.verified
            && !self.auth_in_clear
        {
            let message = "the credentials would go to a server whose certificate was not verified";
            return Err(Error::new(Kind::Insecure, Phase::Auth, message).with_hint(hint::INSECURE));
        }
        Ok(())
    }
}

/// What the server says of a login.
enum Verdict {
    Accepted(Reply),
    /// Another mechanism may do.
    WrongMechanism(Error),
    Refused(Error),
}

/// The refusal is about the mechanism, so another one may do (RFC 4954, 6): it is not known or not allowed, too weak
/// (534 5.7.9), wants encryption (538), or the password must be set anew for it (432). Not where the password must be another one,
/// made for applications, which is said with 534 5.7.9, too.
fn is_about_mechanism(reply: &Reply) -> bool {
    let text = reply.text().to_ascii_lowercase();
    let about_password = ["application", "app password", "app-specific"].iter().any(|word| text.contains(word));
    match (reply.code(), enhanced(reply)) {
        (432 | 538, _) | (_, Some((5, 7, 11) | (4, 7, 12))) => true,
        (534, Some((5, 7, 9)) | None) => !about_password,
        _ => is_not_known(reply),
    }
}

fn is_not_known(reply: &Reply) -> bool {
    reply.code() == 504 || matches!(enhanced(reply), Some((5, 5, 4) | (5, 7, 4)))
}

/// What shows the password is no better for being another mechanism that does: LOGIN is for servers that do not know PLAIN.
fn is_worth_another(refusal: &Reply, before: Mechanism, next: Mechanism) -> bool {
    is_not_known(refusal) || !(before.shows_secret() && next.shows_secret())
}

fn enhanced(reply: &Reply) -> Option<(u8, u16, u16)> {
    reply.enhanced().map(|code| (code.class, code.subject, code.detail))
}

/// The server refused the token, and another one may do. One that was granted too little (RFC 6750, 3.1) will be granted no more.
fn is_stale(error: &Error) -> bool {
    error.kind() == Kind::Auth
        && error.reply().is_some_and(|reply| reply.code() == 535)
        && !error.message().contains("insufficient_scope")
}

fn is_offered(mechanism: Mechanism, offered: &[String]) -> bool {
    offered.iter().any(|name| name == mechanism.as_str())
}

fn nothing_in_common(order: &[Mechanism], credentials: &Credentials, offered: &[String]) -> Error {
    let wanted: Vec<&str> = order.iter().map(|mechanism| mechanism.as_str()).collect();
    let wanted = if wanted.is_empty() { String::new() } else { format!(", and allowed are {}", wanted.join(", ")) };
    let offers = offered.join(", ");
    let message = format!("no mechanism in common for these credentials: the server offers {offers}{wanted}");
    let missing = Mechanism::ALL
        .into_iter()
        .find(|mechanism| !mechanism.is_built() && is_offered(*mechanism, offered) && mechanism.suits(credentials));
    let error = Error::new(Kind::Auth, Phase::Auth, message);
    if let Some(mechanism) = missing {
        return error.with_hint(format!("For {mechanism}, build envoi with its feature `sasl`."));
    }
    let suitable = Mechanism::ALL.into_iter().filter(|mechanism| mechanism.is_built() && mechanism.suits(credentials));
    let names: Vec<&str> = suitable.map(Mechanism::as_str).collect();
    error.with_hint(format!(
        "These credentials log in with {}: ask the server's administrator to switch one of them on.",
        names.join(", ")
    ))
}
