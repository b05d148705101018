//! Logins that are not accepted, in the words of Postfix, Gmail, Exchange and others.

use envoi::{ErrorKind, Phase};

use crate::case::{Case, case, play};
use crate::servers::{CLOSE, Script, Server};

const IN_CLEAR: &str = "smtp://alice:secret@127.0.0.1:{port}?tls=none&auth-in-clear=yes";
const STARTTLS: &str = "smtp://alice:secret@localhost:{port}";

#[tokio::test]
async fn login_failures_have_their_pinned_texts() {
    let answered = |name, script: Script, exit| -> Case {
        case(
            name,
            Server::Plain(script),
            IN_CLEAR,
            ErrorKind::Auth,
            Phase::Auth,
            exit,
        )
    };
    let inside_tls = |name, script: Script| -> Case {
        case(
            name,
            Server::Implicit(script),
            "smtps://alice:secret@localhost:{port}",
            ErrorKind::Auth,
            Phase::Auth,
            77,
        )
    };
    let after = |name, script: Script, phase| -> Case {
        case(
            name,
            Server::Plain(script),
            IN_CLEAR,
            ErrorKind::Refused,
            phase,
            69,
        )
    };
    let good = |world: &crate::case::World| crate::servers::config(&[&world.good()]);
    let cases = vec![
        answered("535", &[("AUTH", "535 Incorrect authentication data")], 77),
        answered(
            "535 5.7.8",
            &[(
                "AUTH",
                "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6",
            )],
            77,
        ),
        answered(
            "535 5.7.8, Gmail",
            &[(
                "AUTH",
                "535-5.7.8 Username and Password not accepted. For more information, go to\r\n535 \
                    5.7.8  https://support.google.com/mail/?p=BadCredentials a1-b2.3 - gsmtp",
            )],
            77,
        ),
        answered(
            "535 5.7.3, Exchange",
            &[("AUTH", "535 5.7.3 Authentication unsuccessful")],
            77,
        ),
        answered(
            "534 5.7.9, Gmail wants an application password",
            &[(
                "AUTH",
                "534-5.7.9 Application-specific password required. For more information, go \
                    to\r\n534 5.7.9  https://support.google.com/mail/?p=InvalidSecondFactor \
                    a1-b2.3 - gsmtp",
            )],
            77,
        ),
        answered(
            "534 5.7.9, the mechanism is too weak",
            &[("AUTH", "534 5.7.9 Authentication mechanism is too weak")],
            77,
        ),
        answered(
            "534 5.7.14, Gmail wants a look through the browser",
            &[(
                "AUTH",
                "534-5.7.14 <https://accounts.google.com/signin/continue?sarp=1> Please log in \
                    via\r\n534-5.7.14 your web browser and then try again.\r\n534 5.7.14  Learn \
                    more at https://support.google.com/mail/answer/78754 a1-b2.3 - gsmtp",
            )],
            77,
        ),
        answered(
            "535 5.7.139, basic authentication is off",
            &[(
                "AUTH",
                "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )],
            77,
        ),
        answered(
            "535 5.7.139, SMTP AUTH is off for the tenant",
            &[(
                "AUTH",
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled \
                    for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )],
            77,
        ),
        answered(
            "535 5.7.139, wrong password",
            &[(
                "AUTH",
                "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )],
            77,
        ),
        answered(
            "535 5.7.139, a policy of the tenant",
            &[(
                "AUTH",
                "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria \
                    to be authenticated successfully. Contact your administrator. \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )],
            77,
        ),
        answered(
            "454 4.7.0",
            &[(
                "AUTH",
                "454 4.7.0 Temporary authentication failure: Connection lost to authentication server",
            )],
            75,
        ),
        answered(
            "454 4.7.0, too many logins",
            &[(
                "AUTH",
                "454 4.7.0 Too many login attempts, please try again later. a1-b2.3 - gsmtp",
            )],
            75,
        ),
        answered(
            "421 4.7.0, too many errors",
            &[("AUTH", "421 4.7.0 mail.example.org Error: too many errors")],
            75,
        ),
        answered(
            "432, a password transition",
            &[("AUTH", "432 4.7.12 A password transition is needed")],
            75,
        ),
        answered(
            "538, only inside TLS",
            &[(
                "AUTH",
                "538 5.7.11 Encryption required for requested authentication mechanism",
            )],
            77,
        ),
        answered(
            "535, the account is disabled",
            &[("AUTH", "535 5.7.13 User account disabled")],
            77,
        ),
        answered(
            "504, the mechanism is unknown after all",
            &[("AUTH", "504 5.5.4 Unrecognized authentication type")],
            77,
        ),
        answered(
            "535, the mechanism is invalid",
            &[(
                "AUTH",
                "535 5.7.8 Error: authentication failed: Invalid authentication mechanism",
            )],
            77,
        ),
        inside_tls(
            "504, -PLUS was offered",
            &[
                (
                    "EHLO",
                    "250-mail.example.org\r\n250 AUTH PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS",
                ),
                ("AUTH", "504 5.5.4 Unrecognized authentication type"),
            ],
        ),
        // The exchange fails on this side.
        inside_tls(
            "a challenge that is not base64",
            &[
                ("EHLO", "250-mail.example.org\r\n250 AUTH CRAM-MD5"),
                ("AUTH", "334 <not base64>"),
                ("*", "501 5.7.0 Authentication aborted"),
            ],
        ),
        inside_tls(
            "an empty challenge",
            &[
                ("EHLO", "250-mail.example.org\r\n250 AUTH CRAM-MD5"),
                ("AUTH", "334 "),
                ("*", "535 5.7.8 Error: authentication failed: invalid"),
            ],
        ),
        inside_tls(
            "more than user name and password",
            &[
                ("EHLO", "250-mail.example.org\r\n250 AUTH LOGIN"),
                ("AUTH", "334 "),
                ("YWxpY2U=", "334 "),
                ("c2VjcmV0", "334 "),
                ("*", "535 5.7.8 no"),
            ],
        ),
        inside_tls(
            "the nonce of another login",
            &[
                ("EHLO", "250-mail.example.org\r\n250 AUTH SCRAM-SHA-256"),
                ("AUTH", "334 cj14LHM9QUFBQSxpPTQwOTY="),
                ("*", "535 5.7.8 Error: authentication failed: bad protocol"),
            ],
        ),
        inside_tls(
            "the server has another TLS connection",
            &[
                ("GREETING", "220 mail.example.org ESMTP"),
                (
                    "EHLO",
                    "250-mail.example.org\r\n250 AUTH SCRAM-SHA-256-PLUS",
                ),
                // e=channel-bindings-dont-match
                ("AUTH", "334 ZT1jaGFubmVsLWJpbmRpbmdzLWRvbnQtbWF0Y2g="),
                ("", "535 5.7.8 Error: authentication failed"),
            ],
        ),
        inside_tls(
            "success without the server's proof",
            &[
                ("EHLO", "250-mail.example.org\r\n250 AUTH SCRAM-SHA-256"),
                ("AUTH", "235 2.7.0 Authentication successful"),
            ],
        ),
        case(
            "530, login first",
            Server::Plain(&[("MAIL", "530 5.7.0 Authentication required")]),
            "smtp://127.0.0.1:{port}?tls=none",
            ErrorKind::Refused,
            Phase::Mail,
            69,
        ),
        case(
            "530 5.7.57, login first, Office 365",
            Server::Plain(&[(
                "MAIL",
                "530 5.7.57 Client not authenticated to send mail. \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )]),
            "smtp://127.0.0.1:{port}?tls=none",
            ErrorKind::Refused,
            Phase::Mail,
            69,
        ),
        case(
            "530, login first, Gmail",
            Server::Plain(&[(
                "MAIL",
                "530-5.7.0 Authentication Required. For more information, go to\r\n530 5.7.0  \
                    https://support.google.com/accounts/troubleshooter/2402620. a1-b2.3 - gsmtp",
            )]),
            "smtp://127.0.0.1:{port}?tls=none",
            ErrorKind::Refused,
            Phase::Mail,
            69,
        ),
        answered(
            "451, the credits are used up, SendGrid",
            &[(
                "AUTH",
                "451 Authentication failed: Maximum credits exceeded",
            )],
            75,
        ),
        answered(
            "550, encryption required",
            &[(
                "AUTH",
                "550 encryption required for requested authentication",
            )],
            77,
        ),
        after(
            "the sender is not the login's, Zoho",
            &[(".", "553 Relaying disallowed as alice@example.com")],
            Phase::EndOfData,
        ),
        after(
            "the sender is not the login's, 163",
            &[("MAIL", "553 Mail from must equal authorized user")],
            Phase::Mail,
        ),
        after(
            "the account is barred, Office 365",
            &[(
                ".",
                "550 5.1.8 Access denied, bad outbound sender AS(42004)",
            )],
            Phase::EndOfData,
        ),
        after(
            "5.7.57 after a login, Office 365",
            &[("MAIL", "530 5.7.57 Client not authenticated to send mail")],
            Phase::Mail,
        ),
        after(
            "an address that is not verified, SES",
            &[(
                ".",
                "554 Message rejected: Email address is not verified. The following identities \
                    failed the check in region EU-WEST-1: me@example.org",
            )],
            Phase::EndOfData,
        ),
        after(
            "5.7.708, Office 365",
            &[(
                ".",
                "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this \
                    IP.",
            )],
            Phase::EndOfData,
        ),
        after(
            "relaying denied after a login",
            &[("RCPT", "554 5.7.1 Relay access denied")],
            Phase::Rcpt,
        ),
        case(
            "closed at the login",
            Server::Plain(&[("AUTH", CLOSE)]),
            IN_CLEAR,
            ErrorKind::Closed,
            Phase::Auth,
            75,
        ),
        // What is offered.
        answered(
            "no mechanism in common",
            &[("EHLO", "250-mail.example.org\r\n250 AUTH GSSAPI X-OWN")],
            77,
        ),
        answered(
            "not the mechanism that is wanted",
            &[("EHLO", "250-mail.example.org\r\n250 AUTH LOGIN")],
            77,
        )
        .with(|endpoint, _| endpoint.mechanism(envoi::proto::Mechanism::Plain)),
        answered(
            "no login before TLS",
            &[("EHLO", "250-mail.example.org\r\n250 STARTTLS")],
            77,
        ),
        answered(
            "no login and no TLS",
            &[("EHLO", "250-mail.example.org\r\n250 SIZE 1000")],
            77,
        ),
        case(
            "no login here, inside TLS",
            Server::StartTls(
                good,
                &[(
                    "EHLO",
                    "250-mail.example.org\r\n250-SIZE 1000\r\n250 STARTTLS",
                )],
            ),
            STARTTLS,
            ErrorKind::Auth,
            Phase::Auth,
            77,
        ),
        case(
            "credentials without TLS",
            Server::Plain(&[]),
            "smtp://alice:secret@127.0.0.1:{port}?tls=none",
            ErrorKind::Insecure,
            Phase::Auth,
            76,
        ),
    ];
    play("login", cases).await;
}
