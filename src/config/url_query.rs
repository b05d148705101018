//! Writes TLS settings as URL query keys, and as lines of Rust for what a URL cannot express.

use super::keys;
use super::settings::Settings;
use crate::tls::{Password, Source, TlsSettings, TlsVersion};

impl TlsSettings {
    /// The URL keys and the calls on an `Endpoint` that result in these settings. Without
    /// passwords.
    pub(crate) fn to_url_query(&self) -> (Vec<(&'static str, String)>, Vec<String>) {
        let (mut settings, mut calls) = (Settings::default(), Vec::new());
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
                    settings.trust.push(path.clone());
                }
                _ => all = false,
            }
        }
        match &trust.pins[..] {
            [pin] => settings.pin = Some(pin.clone()),
            pins => calls.extend(pins.iter().map(|pin| format!(".pin({pin:?})"))),
        }
        // A URL without these keys means the system's store; with them it does not.
        let is_default = settings.trust.is_empty() && settings.pin.is_none();
        match (trust.system, is_default) {
            (true, false) => calls.insert(0, ".system_trust()".into()),
            (false, true) => all = false,
            _ => {}
        }
        match &trust.password {
            Some(Password::File(path)) if path.to_str().is_some() => {
                settings.trust_password_file = Some(path.clone());
            }
            Some(_) => calls.push(".trust_password(trust_password)".into()),
            None => {}
        }
        settings.server_name = self.server_name.clone();
        settings.min_tls = Some(self.min).filter(|min| *min != TlsVersion::Tls12);
        settings.max_tls = Some(self.max).filter(|max| *max != TlsVersion::Tls13);
        if !all {
            return (
                Vec::new(),
                vec![".tls(tls)  // the settings that the probe was given".into()],
            );
        }
        if let Some(certificate) = &self.client_certificate {
            let are_text = |path: &Option<&std::path::PathBuf>| {
                path.is_none_or(|path| path.to_str().is_some())
            };
            match certificate.paths() {
                Some((path, key, password)) if [Some(path), key, password].iter().all(are_text) => {
                    settings.client_cert = Some(path.clone());
                    settings.client_key = key.cloned();
                    settings.client_password_file = password.cloned();
                }
                _ => calls.push(".client_certificate(client_certificate)".into()),
            }
        }
        let keys = keys::given(&settings).flat_map(|(key, value)| {
            let values = value.into_texts();
            values.into_iter().map(|value| (key.name, value))
        });
        (keys.collect(), calls)
    }
}
