//! Any text as an address, a name, a command or a URL: what is taken can be written into a command,
//! and what is not leaves no password in the error.
//!
//! The parts of the input between line feeds are the scheme, user, password, host and rest of a
//! URL, and each of them is tried as an address, too. `\n` in them is written as `%0A`, which the
//! parts decode, so that line ends are tried everywhere.

use envoi::proto::{ClientName, RawCommand};
use envoi::{Address, Endpoint, Envelope, Error, ErrorKind, Mailbox, MailboxList};

const SECRET: &str = "hunter2hunter2";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Elsewhere than in the password, it is text as any other, which an error quotes.
    if text.replace('\n', "").contains(SECRET) {
        return;
    }
    let parts: Vec<&str> = text.split('\n').collect();
    for part in &parts {
        let part = part.replace("%0A", "\n");
        check_address(&part);
        check_mailboxes(&part);
        check_line(&part);
    }
    check_address(text);
    check_mailboxes(text);
    check_line(text);
    check_url(text);

    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    let scheme = if part(0).is_empty() { "smtp" } else { part(0) };
    // Whatever stands around the password, encoded or not, it is not quoted.
    let (before, behind) = part(2).split_once('*').unwrap_or((part(2), ""));
    let (user, host, rest) = (part(1), part(3), part(4));
    check_url(&format!(
        "{scheme}://{user}:{before}{SECRET}{behind}@{host}{rest}"
    ));
    check_url(&format!(
        "smtp://{}:{SECRET}@mail.example.org{rest}",
        encoded(user)
    ));
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn check_address(text: &str) {
    let strict = Address::new(text).map_err(Error::from);
    let lenient = Address::lenient(text).map_err(Error::from);
    assert!(
        strict.is_err() || lenient.is_ok(),
        "lenient takes all that strict takes: {text:?}"
    );
    for error in [&strict, &lenient]
        .into_iter()
        .filter_map(|address| address.as_ref().err())
    {
        check_error(error, text);
    }
    let Ok(address) = lenient else { return };
    assert!(!text.contains(['\r', '\n', '\0']), "{address:?}");
    assert_eq!(address.as_str(), text);
    assert_eq!(
        format!("{}@{}", address.local_part(), address.domain()),
        text
    );
    assert_eq!(address.is_ascii(), text.is_ascii());
    assert!(
        !address.domain().is_empty() && !address.domain().contains(['<', '>', ' ', '@']),
        "{address:?}"
    );
    // What a domain becomes as A-labels can be written, too: letters of other scripts stand for an
    // @ or a dot.
    if let Some(ascii) = address.to_ascii() {
        assert!(
            ascii.is_ascii() && Address::lenient(ascii.as_str()).is_ok(),
            "{ascii:?} of {address:?}"
        );
        assert_eq!(ascii.local_part(), address.local_part());
    }
    // Outside of a quoted string, nothing ends the path (RFC 5321, 4.1.2).
    let local_part = address.local_part();
    let is_quoted =
        local_part.len() > 1 && local_part.starts_with('"') && local_part.ends_with('"');
    assert!(
        is_quoted || !local_part.contains(['<', '>', ' ']),
        "{address:?}"
    );

    let Ok(strict) = strict else { return };
    assert!(!text.contains(['<', '>', '\t']), "{strict:?}");
    assert!(strict.local_part().len() <= 64 && strict.domain().len() <= 255);
    assert_eq!(strict.to_string().parse::<Address>().unwrap(), strict);
    if let Some(ascii) = strict.to_ascii() {
        assert!(
            Address::new(ascii.as_str()).is_ok(),
            "{ascii:?} of {strict:?}"
        );
    }
    let envelope = Envelope::new(None, [strict.clone(), address]).unwrap();
    assert_eq!(envelope.recipients().len(), 1, "the same mailbox");
    assert_eq!(envelope.is_ascii(), strict.to_ascii().is_some());
}

/// A list that is parsed is printed in one line, from which the same list is parsed, and each of
/// its mailboxes by itself.
fn check_mailboxes(text: &str) {
    let list = match text.parse::<MailboxList>() {
        Ok(list) => list,
        Err(error) => return check_error(&Error::from(error), text),
    };
    let printed = list.to_string();
    assert!(!printed.contains(char::is_control), "{printed:?}");
    assert_eq!(
        printed.parse::<MailboxList>().as_ref(),
        Ok(&list),
        "{text:?}"
    );
    for mailbox in list.mailboxes() {
        let printed = mailbox.to_string();
        assert_eq!(printed.parse::<Mailbox>().as_ref(), Ok(mailbox), "{text:?}");
        assert!(Address::new(mailbox.address().as_str()).is_ok());
    }
    if list.mailboxes().next().is_some() {
        assert!(Envelope::new(None, list).is_ok());
    }
}

/// What else is written as a line.
fn check_line(text: &str) {
    let name = ClientName::new(text).map_err(Error::from);
    let command = RawCommand::new(text).map_err(Error::from);
    for error in [name.as_ref().err(), command.as_ref().err()]
        .into_iter()
        .flatten()
    {
        check_error(error, text);
    }
    if let Ok(name) = name {
        assert!(!name.as_str().contains(['\r', '\n', '\0', ' ']));
    }
    if let Ok(command) = command {
        assert!(!command.as_str().contains(['\r', '\n', '\0']));
    }
}

fn check_url(url: &str) {
    // It would read a file, and a device is one.
    if url.contains("trust") {
        return;
    }
    match Endpoint::from_url(url) {
        Ok(endpoint) => {
            assert!(!format!("{endpoint:?}").contains(SECRET), "{url:?}");
            assert!(!endpoint.host().is_empty() && endpoint.get_port() > 0);
        }
        Err(error) => check_error(&error, url),
    }
}

/// It is for people: one that says what is wrong, is not too long and shows nothing that a terminal
/// would obey.
fn check_error(error: &Error, input: &str) {
    assert_eq!(error.kind(), ErrorKind::Request, "{input:?}");
    let texts = [error.to_string(), format!("{error:?}")];
    for text in &texts {
        assert!(!text.contains(SECRET), "{input:?}: {text}");
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{input:?}: {text:?}"
        );
        assert!(text.len() < 3000, "{input:?}: {text}");
    }
    assert!(
        !error.message().is_empty() && !error.message().contains('\n'),
        "{input:?}: {error:?}"
    );
}
