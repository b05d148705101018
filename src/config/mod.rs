//! The settings of a client: the server, its URL, the login and the time-outs.

mod connectors;
pub(crate) mod endpoint;
mod keys;
pub(crate) mod login;
#[cfg(feature = "proxy")]
mod proxy_url;
pub(crate) mod send_window;
pub(crate) mod settings;
#[cfg(feature = "serde")]
mod settings_serde;
pub(crate) mod timeouts;
pub(crate) mod token;
mod url;
mod url_query;
