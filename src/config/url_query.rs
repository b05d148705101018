//! Writes TLS settings as URL query keys, and as lines of Rust for what a URL cannot express.

use crate::tls::{Password, Source, TlsSettings, TlsVersion};

impl TlsSettings {
    /// The URL keys and the calls on an `Endpoint` that result in these settings. Without
    /// passwords.
    pub(crate) fn to_url_query(&self) -> (Vec<(&'static str, String)>, Vec<String>) {
        let (mut keys, mut calls) = (Vec::new(), Vec::new());
        let trust = &self.trust;
        // Bytes in memory and a rustls configuration cannot be written.
        let mut all = !trust.accepts_any_certificate
            && trust.revocation_lists.is_empty()
            && self.config.is_none();
        #[cfg(feature = "mozilla-roots")]
        {
            all &= !trust.mozilla;
        }
        for source in &trust.sources {
            match source {
                Source::File(path) | Source::Folder(path) | Source::Path(path)
                    if path.to_str().is_some() =>
                {
                    keys.push(("trust", path.display().to_string()));
                }
                _ => all = false,
            }
        }
        match &trust.pins[..] {
            [pin] => keys.push(("pin", pin.clone())),
            pins => calls.extend(pins.iter().map(|pin| format!(".pin({pin:?})"))),
        }
        // A URL without these keys means the system's store; with them it does not.
        match (trust.system, keys.is_empty()) {
            (true, false) => calls.insert(0, ".system_trust()".into()),
            (false, true) => all = false,
            _ => {}
        }
        match &trust.password {
            Some(Password::File(path)) if path.to_str().is_some() => {
                keys.push(("trust-password-file", path.display().to_string()));
            }
            Some(_) => calls.push(".trust_password(trust_password)".into()),
            None => {}
        }
        if let Some(name) = &self.server_name {
            keys.push(("server-name", name.clone()));
        }
        let number = |version: TlsVersion| version.to_string().replace("TLSv", "");
        if self.min != TlsVersion::Tls12 {
            keys.push(("min-tls", number(self.min)));
        }
        if self.max != TlsVersion::Tls13 {
            keys.push(("max-tls", number(self.max)));
        }
        if !all {
            return (
                Vec::new(),
                vec![".tls(tls)  // the settings that the probe was given".into()],
            );
        }
        if self.client_certificate.is_some() {
            calls.push(".client_certificate(client_certificate)".into());
        }
        (keys, calls)
    }
}
