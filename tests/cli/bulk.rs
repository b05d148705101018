//! The example `bulk` as a program: what it delivers, prints and exits with, also when it is
//! killed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use envoi::testing::{Builder, Fault, Server, Step};
use mail_parser::{MessageParser, MimeHeaders as _};
use serde_json::{Value, json};
use support::program::{self, Run};
use tempfile::TempDir;
#[cfg(unix)]
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const TEMPLATE: &str = "From: \"News, weekly\" <news@example.org>\r\n\
    To: {{name}} <{{email}}>\r\n\
    Subject: Hello {{name}}\r\n\
    Message-ID: <{{id}}.news@example.org>\r\n\
    List-Unsubscribe: <https://example.org/leave?who={{email}}>\r\n\
    Date: Tue, 1 Jul 2003 10:52:37 +0200\r\n\
    \r\n\
    Dear {{ name }},\r\nread the news.\r\n";

/// The files of a mailing.
struct Mailing {
    folder: TempDir,
    server: Server,
}

impl Mailing {
    async fn new(builder: Builder, template: &str, csv: &str) -> Self {
        let mailing = Mailing {
            folder: tempfile::tempdir().unwrap(),
            server: builder.plaintext().start().await.unwrap(),
        };
        mailing.write("template.eml", template);
        mailing.write("recipients.csv", csv);
        mailing
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        self.arguments_for(&self.server.url(), more)
    }

    fn arguments_for(&self, url: &str, more: &[&str]) -> Vec<String> {
        let (recipients, template) = (self.path("recipients.csv"), self.path("template.eml"));
        let journal = self.path("journal");
        let arguments = [
            "--url",
            url,
            "--recipients",
            &recipients,
            "--template",
            &template,
            "--journal",
            &journal,
        ];
        arguments
            .iter()
            .chain(more)
            .map(|text| (*text).to_owned())
            .collect()
    }

    async fn run(&self, more: &[&str]) -> Run {
        self.run_for(&self.server.url(), more).await
    }

    async fn run_for(&self, url: &str, more: &[&str]) -> Run {
        let arguments = self.arguments_for(url, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        program::run("bulk", &arguments, b"", &[]).await
    }

    /// The numbers: sent, refused, unknown, skipped, waiting.
    async fn counts(&self, more: &[&str], code: i32) -> [u64; 5] {
        let run = self.run(&[more, &["--json"]].concat()).await;
        let object = run.exits_with(code).json();
        assert_eq!(object.as_object().unwrap().len(), 5);
        ["sent", "refused", "unknown", "skipped", "waiting"]
            .map(|name| object[name].as_u64().unwrap())
    }

    /// The messages by their recipient, which is the only one of each.
    fn received(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut received: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in self.server.messages() {
            assert_eq!(message.recipients.len(), 1);
            let content = message.read().unwrap();
            received
                .entry(message.recipients[0].clone())
                .or_default()
                .push(content);
        }
        received
    }

    fn one(&self) -> Vec<u8> {
        let received = self.received();
        assert_eq!(received.len(), 1);
        received.into_values().next().unwrap().remove(0)
    }
}

fn csv(count: usize) -> String {
    let line = |number| format!("user{number}@example.com,User {number},{number}\n");
    "email,name,id\n".to_owned() + &(0..count).map(line).collect::<String>()
}

#[tokio::test]
async fn each_line_gets_one_message() {
    // With a BOM, quoted fields, and a domain in another case.
    let csv = "\u{feff}name,email,id\n\"Doe, \"\"JD\"\" John\",john@Example.COM,1\n\
        Änne,anne@example.com,2\n";
    let mailing = Mailing::new(Server::builder(), TEMPLATE, csv).await;
    assert_eq!(mailing.counts(&[], 0).await, [2, 0, 0, 0, 0]);
    let received = mailing.received();
    let parsed = |to: &str| {
        let content = &received[to][0];
        (
            String::from_utf8(content.clone()).unwrap(),
            MessageParser::new().parse(content).unwrap(),
        )
    };
    let (text, john) = parsed("john@Example.COM");
    assert_eq!(john.subject(), Some("Hello Doe, \"JD\" John"));
    let to = john.to().unwrap().first().unwrap();
    assert_eq!(
        (to.name(), to.address()),
        (Some("Doe, \"JD\" John"), Some("john@Example.COM"))
    );
    assert!(
        john.body_text(0)
            .unwrap()
            .starts_with("Dear Doe, \"JD\" John,"),
        "{text}"
    );
    assert!(
        text.contains("<https://example.org/leave?who=john%40Example%2ECOM>"),
        "{text}"
    );
    assert_eq!(john.message_id(), Some("1.news@example.org"));
    assert!(
        text.starts_with("From: \"News, weekly\" <news@example.org>\r\n"),
        "{text}"
    );
    let (text, anne) = parsed("anne@example.com");
    // Encoded words in the header fields, and quoted-printable in a text that was 7bit.
    assert!(text.is_ascii(), "{text}");
    assert_eq!(anne.subject(), Some("Hello Änne"));
    assert_eq!(anne.to().unwrap().first().unwrap().name(), Some("Änne"));
    assert!(
        anne.body_text(0).unwrap().starts_with("Dear Änne,\r\nread"),
        "{text}"
    );
    let sender = &mailing.server.messages()[0].reverse_path;
    assert_eq!(sender.as_deref(), Some("news@example.org"));

    // Nothing is left to be sent.
    assert_eq!(mailing.counts(&[], 0).await, [0, 0, 0, 2, 0]);
    assert_eq!(mailing.server.messages().len(), 2);
}

/// A text is encoded as its part is, and HTML has references.
#[tokio::test]
async fn each_part_keeps_its_encoding() {
    let template = "From: news@example.org\r\nMIME-Version: 1.0\r\n\
        Subject: =?utf-8?Q?F=C3=BCr_{{name}}?=\r\n\
        Content-Type: multipart/mixed; boundary=outer\r\n\r\nA preamble {{x}}.\r\n--outer\r\n\
        Content-Type: multipart/alternative; boundary=inner\r\n\r\n--inner\r\n\
        Content-Type: text/plain; charset=iso-8859-1\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n\
        Gr=FC=DFe an {{na=\r\nme}}.\r\n--inner\r\n\
        Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        PHA+SGVsbG8gPGI+e3tuYW1lfX08L2I+ITwvcD4K\r\n--inner--\r\n--outer\r\n\
        Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        e3tuYW1lfX0=\r\n--outer--\r\n";
    let csv = "email,name\nyou@example.com,\"<b>T & 'Ö'</b>\nsecond line\"\n";
    let mailing = Mailing::new(Server::builder(), template, csv).await;
    mailing.run(&[]).await.exits_with(0);
    let content = mailing.one();
    let text = String::from_utf8(content.clone()).unwrap();
    let message = MessageParser::new().parse(&content).unwrap();
    assert_eq!(
        message.subject(),
        Some("Für <b>T & 'Ö'</b> second line"),
        "{text}"
    );
    let plain = message.body_text(0).unwrap();
    assert_eq!(
        plain.trim_end(),
        "Grüße an <b>T & 'Ö'</b>\r\nsecond line.",
        "{text}"
    );
    let html = message.body_html(0).unwrap();
    let expected = "<p>Hello <b>&lt;b&gt;T &amp; &#39;Ö&#39;&lt;/b&gt;\r\nsecond line</b>!</p>";
    assert_eq!(html.trim_end(), expected, "{text}");
    // An attachment is not a text, and a preamble neither.
    assert_eq!(
        message.attachment(0).unwrap().contents(),
        b"{{name}}",
        "{text}"
    );
    assert!(text.contains("A preamble {{x}}."), "{text}");
    assert!(
        text.contains("Content-Transfer-Encoding: base64\r\n\r\nPHA+"),
        "{text}"
    );
    // A message has a date and an identifier.
    assert!(
        message.date().is_some() && message.message_id().is_some(),
        "{text}"
    );
}

/// No value ends the part that it is in, and the parameters of a part stay.
#[tokio::test]
async fn a_value_adds_no_part() {
    for encoding in ["7bit", "8bit", "quoted-printable", "base64"] {
        let template = format!(
            "From: news@example.org\r\nMIME-Version: 1.0\r\n\
            Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
            Content-Type: text/plain; name=\"{{{{id}}}}.txt\"; charset=us-ascii;\r\n \
            title*=iso-8859-1''%DCbersicht\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{}\r\n\
            --b--\r\n",
            match encoding {
                "base64" => "e3t4fX0=",
                _ => "{{x}}",
            }
        );
        let evil = "\n--b\nContent-Type: text/html\n\nevil\n--b--\n";
        // With a soft line break before it, too.
        for before in ["", &"x".repeat(74), &format!("{}=", "x".repeat(72))] {
            let value = format!(
                "{before}{}{evil}",
                if before.is_empty() { "" } else { "--b--" }
            );
            let csv = format!("email,id,x\nyou@example.com,7,\"{value}\"\n");
            let mailing = Mailing::new(Server::builder(), &template, &csv).await;
            mailing.run(&[]).await.exits_with(0);
            let content = mailing.one();
            let text = String::from_utf8(content.clone()).unwrap();
            assert_eq!(text.matches("\r\n--b").count(), 2, "{text}");
            let message = MessageParser::new().parse(&content).unwrap();
            assert_eq!(message.parts.len(), 2, "{text}");
            let body = message.body_text(0).unwrap().replace("\r\n", "\n");
            assert_eq!(body.trim_end(), value.trim_end(), "{text}");
            assert!(text.contains(" name=\"7.txt\""), "{text}");
            assert!(text.contains(" title*=UTF-8''%C3%9Cbersicht"), "{text}");
        }
    }
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_sent() {
    let good = csv(3);
    for (template, csv, code, words) in [
        (
            TEMPLATE,
            "name,id\nx,1\n",
            64,
            "line 1 of the recipients: there is no column `email`",
        ),
        (
            TEMPLATE,
            "email,name,id\na@example.com,A,1\nb.example.com,B,2\n",
            64,
            "line 3 of the recipients",
        ),
        (
            TEMPLATE,
            "email,name,id\na@example.com,A\n",
            64,
            "line 2 of the recipients: it has 2 fields",
        ),
        (
            TEMPLATE,
            "email,name,id\na@example.com,A,<x>\n",
            64,
            "line 2 of the recipients: a value is not valid",
        ),
        (
            "From: a@example.org\r\n\r\nHi.\r\n{{nam}}\r\n",
            &good,
            64,
            "line 4 of the template: there is no column `nam`",
        ),
        (
            "From: a@example.org\r\nSubject: {{ X }}\r\n\r\nHi.\r\n",
            &good,
            64,
            "line 2 of the template: there is no column `X`",
        ),
        (
            "Subject: x\r\n\r\nHi.\r\n",
            &good,
            64,
            "the template has no sender",
        ),
        (
            TEMPLATE,
            "email,name,id,email\na@example.com,A,1,b@example.com\n",
            64,
            "line 1 of the recipients: there are two columns `email`",
        ),
        (
            TEMPLATE,
            "email,name,id,name\na@example.com,A,1,B\n",
            64,
            "line 2 of the template: there are two columns `name`",
        ),
        (
            "\nFrom x Mon\nFrom: a@example.org\nX-{{id}}: x\n\nHi.\n",
            &good,
            64,
            "line 4 of the template: a column cannot be in the name of a header",
        ),
        (
            "From: a@example.org\nContent-Type: multipart/mixed; boundary=b{{id}}\n\n\
                --b{{id}}\n\nHi.\n--b{{id}}--\n",
            &good,
            64,
            "line 2 of the template: in Content-Type, a column can only be in the value",
        ),
        (
            "From: a@example.org\nContent-Type: {{name}}; x=y\n\nHi.\n",
            &good,
            64,
            "line 2 of the template: in Content-Type, a column can only be in the value",
        ),
        (
            "From: a@example.org\nContent-Disposition: inline; {{name}}=y\n\nHi.\n",
            &good,
            64,
            "line 2 of the template: in Content-Disposition, a column can only be in the value",
        ),
        (
            "From: a@example.org\nContent-Transfer-Encoding: {{name}}\n\nHi.\n",
            &good,
            64,
            "line 2 of the template: a column cannot be in Content-Transfer-Encoding",
        ),
        (
            "From: a@example.org\nList-Id: =?utf-8?Q?=7B=7Bname=7D=7D?= <a.b>\n\nHi.\n",
            &good,
            64,
            "line 2 of the template: List-ID has an encoded word and a column",
        ),
        (
            "From: a@example.org\n\nHi, {{name}.\n",
            &good,
            64,
            "line 3 of the template: a `{{` without `}}`",
        ),
        (
            "From: a@example.org\nContent-Type: text/html\n\
                Content-Transfer-Encoding: base64\n\n<a href=\"x\">{{name}}</a>\n",
            &good,
            64,
            "line 5 of the template: the text is not encoded as its Content-Transfer-Encoding says",
        ),
        (
            "From: a@example.org\nContent-Type: text/plain; charset=utf-8\n\
                Content-Transfer-Encoding: base64\n\n/HZvbiB7e25hbWV9fQ==\n",
            &good,
            64,
            "line 5 of the template: a text with columns is not valid in its character set",
        ),
        // The lines after a quote would be one field.
        (
            TEMPLATE,
            "email,id,name\r\na@example.com,1,A\r\nb@example.com,2,\"B\r\nc@example.com,3,C\r\n",
            64,
            "line 3 of the recipients: a quote is not closed",
        ),
        (
            TEMPLATE,
            "email,id,\"name\na@example.com,1,A\n",
            64,
            "line 1 of the recipients: a quote is not closed",
        ),
        // Lines are counted as in an editor.
        (
            TEMPLATE,
            "email,name,id\r\n\r\na@example.com,\"A\r\nB\",1\r\n\r\nb.example.com,B,2\r\n",
            64,
            "line 6 of the recipients",
        ),
        // What envoi refuses to send.
        (
            "From: a@example.org\nFrom: b@example.org\n\nHi.\n",
            &good,
            64,
            "a second From header",
        ),
        (
            TEMPLATE,
            "email,name,id\na@example.com,A,1\nb@example.com,B\0,2\n",
            64,
            "line 3 of the recipients: line 11 of the message has a NUL",
        ),
    ] {
        let mailing = Mailing::new(Server::builder(), template, csv).await;
        mailing.run(&[]).await.exits_with(code).says(words);
        assert!(mailing.server.messages().is_empty(), "{words}");
    }
    let mailing = Mailing::new(Server::builder(), TEMPLATE, &good).await;
    mailing.write("recipients.csv", b"email,name,id\na@example.com,\xff,1\n");
    mailing
        .run(&[])
        .await
        .exits_with(64)
        .says("line 2 of the recipients: it is not UTF-8");
    mailing.write("recipients.csv", &good);
    for file in ["recipients.csv", "template.eml"] {
        let mailing = Mailing::new(Server::builder(), TEMPLATE, &good).await;
        std::fs::remove_file(mailing.path(file)).unwrap();
        mailing.run(&[]).await.exits_with(66).says("cannot be read");
    }
    for more in [
        &["--rate", "10"][..],
        &["--rate", "0/s"],
        &["--connections", "0"],
        &["--from", "x"],
        &["--secret", "Xyzzy"],
    ] {
        let run = mailing.run(more).await;
        assert!(!run.exits_with(64).stderr.contains("Xyzzy"));
    }
}

/// A name that is not ASCII is encoded by RFC 2231, and encoded words have columns, too.
#[tokio::test]
async fn parameters_and_encoded_words_take_any_value() {
    const VALUES: [&str; 4] = [
        "report",
        "J\u{f6} \"<b>\"; x=y",
        "a\r\nContent-Type: text/html\r\n\r\n--b",
        "\u{f6}\u{1f600}'%41",
    ];
    let template = "From: =?utf-8?Q?Gr=C3=BC=C3=9Fe_f=C3=BCr_=7B=7Bx=7D=7D?= <news@example.org>\n\
        To: {{email}}\nSubject: =?iso-8859-1?Q?=FCber?= =?utf-8?B?IHt7eH19?=\n\
        MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b; x={{x}}\n\n--b\n\
        Content-Type: text/plain; name={{x}}.txt\n\
        Content-Disposition: attachment; filename=\"{{x}}.txt\"; size=7\n\nHi.\n--b\n\
        Content-Type: application/pdf; name=\"=?utf-8?Q?=7B=7Bx=7D=7D?=.pdf\"\n\
        Content-Disposition: attachment; filename*=utf-8'en'%C3%BC%7B%7Bx%7D%7D.pdf\n\n\
        %PDF\n--b\nContent-Type: application/pdf\nContent-Disposition: attachment;\n \
        filename*0=\"{{x\";\n filename*1=\"}}.pdf\"\n\n%PDF\n--b--\n";
    for value in VALUES
        .map(str::to_owned)
        .into_iter()
        .chain(["\u{f6}".repeat(300)])
    {
        let quoted = value.replace('"', "\"\"");
        let csv = format!("email,x\nyou@example.com,\"{quoted}\"\n");
        let mailing = Mailing::new(Server::builder(), template, &csv).await;
        mailing.run(&[]).await.exits_with(0);
        let content = mailing.one();
        let text = String::from_utf8(content.clone()).unwrap();
        assert!(text.is_ascii(), "{text}");
        let message = MessageParser::new().parse(&content).unwrap();
        assert_eq!(message.parts.len(), 4, "{text}");
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let from = message.from().unwrap().first().unwrap();
        let name = format!("Gr\u{fc}\u{df}e f\u{fc}r {value}");
        assert_eq!(
            (from.name(), from.address()),
            (Some(&*name), Some("news@example.org"))
        );
        let subject = format!("\u{fc}ber {value}");
        assert_eq!(message.subject(), Some(&*subject), "{text}");
        let parameters = |part: usize| {
            let part = &message.parts[part];
            let name = |field: Option<&mail_parser::ContentType<'_>>, name: &str| {
                field
                    .and_then(|field| field.attribute(name))
                    .map(str::to_owned)
            };
            let disposition = name(part.content_disposition(), "filename");
            (name(part.content_type(), "name"), disposition)
        };
        let named = |name: &str| Some(name.replace("{x}", &value));
        assert_eq!(
            parameters(1),
            (named("{x}.txt"), named("{x}.txt")),
            "{text}"
        );
        assert_eq!(
            parameters(2),
            (named("{x}.pdf"), named("\u{fc}{x}.pdf")),
            "{text}"
        );
        assert_eq!(parameters(3), (None, named("{x}.pdf")), "{text}");
        let kind = message.content_type().unwrap();
        assert_eq!(kind.attribute("x"), Some(&*value), "{text}");
        assert!(text.contains(" size=\"7\""), "{text}");
    }
}

/// A value adds no property to a calendar.
#[tokio::test]
async fn calendars_take_escaped_values() {
    let template = "From: news@example.org\nMIME-Version: 1.0\n\
        Content-Type: text/calendar; method=REQUEST\n\nBEGIN:VEVENT\nSUMMARY:{{x}}\nEND:VEVENT\n";
    let csv = "email,x\nyou@example.com,\"a, b; \\c\r\nATTENDEE:mailto:evil@example.net\nd\"\n";
    let mailing = Mailing::new(Server::builder(), template, csv).await;
    mailing.run(&[]).await.exits_with(0);
    let text = String::from_utf8(mailing.one()).unwrap();
    let expected = "\r\nSUMMARY:a\\, b\\; \\\\c\\nATTENDEE:mailto:evil@example.net\\nd\r\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("method=\"REQUEST\""), "{text}");
}

/// A field that has a column is there once, and its value is written as the field needs it.
#[tokio::test]
async fn fields_take_whole_values() {
    // Before the first field is what envoi removes from a message.
    let template = "\u{feff}\n \nFrom alice Tue Jul  1 10:52:37 2003\nFrom: news@example.org\n\
        To: {{email}}\nDate: {{when}}\nMessage-ID: <{{id}}>\n\
        List-Unsubscribe: <{{url}}>, <https://example.org/?q={{url}}>\n\nHi.\n";
    let csv = "email,when,id,url\nyou@b\u{fc}cher.example,\
        \"Tue, 1 Jul 2003 10:52:37 +0200\",1@example.org,https://example.net/\u{fc}?a=b&c=d e\n\
        you@XN--bcher-kva.example,,,\n";
    let mailing = Mailing::new(Server::builder(), template, csv).await;
    let run = mailing.run(&[]).await;
    // The second line has the same mailbox.
    run.exits_with(0).says("the first is line 3");
    let text = String::from_utf8(mailing.one()).unwrap();
    let expected = "From: news@example.org\r\nTo: <you@xn--bcher-kva.example>\r\n\
        Date: Tue, 1 Jul 2003 10:52:37 +0200\r\nMessage-ID: <1@example.org>\r\n\
        List-Unsubscribe: <https://example.net/%C3%BC?a=b&c=d%20e>, \
        <https://example.org/?q=https%3A%2F%2Fexample%2Enet%2F%C3%BC%3Fa%3Db%26c%3Dd%20e>\r\n\r\n\
        Hi.\r\n";
    assert_eq!(text, expected);
    let template = template.replace("Date: {{when}}", "Date: {{id}}");
    let (one_line, _) = csv.split_once("you@XN").unwrap();
    let mailing = Mailing::new(Server::builder(), &template, one_line).await;
    mailing.run(&[]).await.exits_with(0);
    let text = String::from_utf8(mailing.one()).unwrap();
    assert_eq!(text.matches("Date: ").count(), 1, "{text}");
}

#[tokio::test]
async fn the_message_id_is_ascii() {
    let mailing = Mailing::new(Server::builder(), "Subject: x\n\nHi.\n", &csv(1)).await;
    let from = ["--from", "news@b\u{fc}cher.example"];
    mailing.run(&from).await.exits_with(0);
    let text = String::from_utf8(mailing.one()).unwrap();
    assert!(text.contains("@xn--bcher-kva.example>\r\n"), "{text}");
}

#[tokio::test]
async fn the_envelope_has_the_senders_address() {
    let template = "From: a@example.org, b@example.org\r\nSender: s@example.org\r\n\r\nHi.\r\n";
    let mailing = Mailing::new(Server::builder(), template, &csv(1)).await;
    mailing.run(&[]).await.exits_with(0);
    assert_eq!(
        mailing.server.messages()[0].reverse_path.as_deref(),
        Some("s@example.org")
    );
    let mailing = Mailing::new(Server::builder(), template, &csv(1)).await;
    mailing
        .run(&["--from", "bounces@example.org"])
        .await
        .exits_with(0);
    assert_eq!(
        mailing.server.messages()[0].reverse_path.as_deref(),
        Some("bounces@example.org")
    );
}

/// What is final is skipped, what is not is tried again, and what is in doubt is listed.
#[tokio::test]
async fn a_second_run_sends_what_is_left() {
    let server = Server::builder()
        .refuse_recipient("user1@example.com", "550 5.1.1 No such user")
        .fault(
            Fault::reply(Step::Rcpt, "450 4.2.1 Busy")
                .matching("user2@")
                .times(1),
        )
        .fault(Fault::close(Step::Accepted).matching("user3@").times(1));
    let mailing = Mailing::new(server, TEMPLATE, &csv(6)).await;
    let first = mailing.run(&[]).await;
    first.exits_with(79).says("line 3: user1@example.com: ");
    assert!(
        first.stdout.contains("in doubt: user3@example.com: "),
        "{}",
        first.stdout
    );
    assert!(
        first
            .stdout
            .ends_with("3 sent, 1 refused, 1 in doubt, 0 skipped, 1 waiting\n"),
        "{}",
        first.stdout
    );
    assert_eq!(mailing.counts(&[], 79).await, [1, 0, 1, 4, 0]);
    assert_eq!(mailing.counts(&[], 79).await, [0, 0, 1, 5, 0]);
    // Sent again by request alone; the exit code is that of the refused one then.
    assert_eq!(
        mailing.counts(&["--resend-unknown"], 69).await,
        [1, 0, 0, 5, 0]
    );
    assert_eq!(mailing.counts(&[], 69).await, [0, 0, 0, 6, 0]);
    let received = mailing.received();
    assert_eq!(received["user3@example.com"].len(), 2);
    assert_eq!(received.values().map(Vec::len).sum::<usize>(), 6);
}

/// What becomes of a second copy says nothing about the first one.
#[tokio::test]
async fn a_refused_copy_leaves_a_message_in_doubt() {
    for refusal in [
        Fault::reply(Step::Greeting, "554 5.7.1 Not from here"),
        Fault::reply(Step::Rcpt, "550 5.1.1 No such user"),
        Fault::reply(Step::Message, "554 5.6.0 No"),
    ] {
        let server = Server::builder().fault(Fault::close(Step::Accepted).times(1));
        let mailing = Mailing::new(server, TEMPLATE, &csv(1)).await;
        assert_eq!(mailing.counts(&[], 79).await, [0, 0, 1, 0, 0]);
        mailing.server.add_fault(refusal);
        assert_eq!(
            mailing.counts(&["--resend-unknown"], 79).await,
            [0, 0, 1, 0, 0]
        );
        mailing.server.clear_faults();
        assert_eq!(
            mailing.counts(&["--resend-unknown"], 0).await,
            [1, 0, 0, 0, 0]
        );
    }
}

/// A mailbox gets one message, and each line is counted once.
#[tokio::test]
async fn repeated_mailboxes_get_one_message() {
    let csv = "email,name,id\nb@example.com,C,3\na@example.com,A,1\na@EXAMPLE.com,B,2\n";
    for (builder, counts, code, later, later_code) in [
        (Server::builder(), [3, 0, 0, 0, 0], 0, [0, 0, 0, 3, 0], 0),
        (
            Server::builder().refuse_recipient("a@example.com", "550 5.1.1 No such user"),
            [1, 2, 0, 0, 0],
            69,
            [0, 0, 0, 3, 0],
            69,
        ),
        (
            Server::builder().fault(Fault::reply(Step::Rcpt, "450 4.2.1 Busy").matching("a@")),
            [1, 0, 0, 0, 2],
            75,
            [0, 0, 0, 1, 2],
            75,
        ),
        (
            Server::builder().fault(Fault::close(Step::Accepted).matching("a@").times(1)),
            [1, 0, 2, 0, 0],
            79,
            [0, 0, 2, 1, 0],
            79,
        ),
    ] {
        let mailing = Mailing::new(builder, TEMPLATE, csv).await;
        // The message to the other mailbox is answered first.
        let run = mailing.run(&["--json", "--connections", "1"]).await;
        run.says("Lines that repeat a mailbox have its outcome: 1, the first is line 4");
        let object = run.exits_with(code).json();
        let names = ["sent", "refused", "unknown", "skipped", "waiting"];
        assert_eq!(names.map(|name| object[name].as_u64().unwrap()), counts);
        assert!(
            mailing
                .received()
                .values()
                .all(|received| received.len() == 1)
        );
        assert_eq!(mailing.counts(&[], later_code).await, later);
    }
}

/// The exit code is about the whole journal, and the numbers about the lines.
#[tokio::test]
async fn the_exit_code_is_about_recipients_that_were_removed_too() {
    let busy = Fault::reply(Step::Message, "451 4.3.0 Try later").matching("user0@");
    for (fault, code) in [
        (busy, 75),
        (
            Fault::reply(Step::Rcpt, "550 5.1.1 No").matching("user0@"),
            69,
        ),
        (Fault::close(Step::Accepted).matching("user0@"), 79),
    ] {
        let mailing = Mailing::new(Server::builder().fault(fault), TEMPLATE, &csv(1)).await;
        mailing.run(&[]).await.exits_with(code);
        mailing.write(
            "recipients.csv",
            csv(2).replace("user0@example.com,User 0,0\n", ""),
        );
        assert_eq!(mailing.counts(&[], code).await, [1, 0, 0, 0, 0]);
        mailing.write("recipients.csv", csv(0));
        assert_eq!(mailing.counts(&[], code).await, [0, 0, 0, 0, 0]);
    }
}

#[tokio::test]
async fn failures_of_the_server_leave_lines_waiting() {
    let mailing = Mailing::new(Server::builder(), TEMPLATE, &csv(20)).await;
    mailing
        .server
        .add_fault(Fault::reply(Step::Greeting, "421 4.3.2 Not now"));
    let run = mailing.run(&["--json"]).await;
    let expected = json!({"sent": 0, "refused": 0, "unknown": 0, "skipped": 0, "waiting": 20});
    assert_eq!(run.exits_with(75).json(), expected);
    mailing.server.clear_faults();
    assert_eq!(mailing.counts(&[], 0).await, [20, 0, 0, 0, 0]);

    // Permanent refusals of the session say nothing about the messages.
    for step in [Step::Greeting, Step::Hello] {
        let mailing = Mailing::new(Server::builder(), TEMPLATE, &csv(3)).await;
        mailing
            .server
            .add_fault(Fault::reply(step, "554 5.7.1 Not from here"));
        assert_eq!(mailing.counts(&[], 69).await, [0, 0, 0, 0, 3]);
        mailing.server.clear_faults();
        assert_eq!(mailing.counts(&[], 0).await, [3, 0, 0, 0, 0]);
    }

    let login = Server::builder().login("me", "secret").auth_in_clear(true);
    let mailing = Mailing::new(login, TEMPLATE, &csv(2)).await;
    let password = mailing.path("password");
    mailing.write("password", "wrong");
    let url = mailing.server.url().replace("me:secret@", "me@");
    let more = ["--password-file", &password, "--json"];
    let run = mailing.run_for(&url, &more).await;
    assert_eq!(run.exits_with(77).json()["waiting"], 2);
    // TLS, for which the certificates to trust cannot be read.
    let url = format!("smtp://localhost:{}", mailing.server.port());
    for trust in ["missing", "password"] {
        let trust = mailing.path(trust);
        let run = mailing.run_for(&url, &["--trust", &trust, "--json"]).await;
        assert_eq!(run.exits_with(78).says(&trust).json()["waiting"], 2);
    }
}

/// A terminal shows a bar with the rate and the time left.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_terminal_shows_the_progress() {
    let slow = Fault::delay(Step::Accepted, Duration::from_millis(10));
    let mailing = Mailing::new(Server::builder().fault(slow), TEMPLATE, &csv(60)).await;
    let program = program::path("bulk").to_str().unwrap().to_owned();
    let words = [program].into_iter().chain(mailing.arguments(&[]));
    let command = words.map(|word| format!("'{word}' ")).collect::<String>();
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let bar = text.split(['\r', '\n']).find(|line| line.contains("] "));
    let bar = bar.unwrap_or_else(|| panic!("no bar in {text:?}"));
    assert!(
        bar.contains(" of 60 [") && bar.contains("/s, ") && bar.contains(" left"),
        "{bar:?}"
    );
    assert!(text.ends_with("60 sent, 0 refused, 0 in doubt, 0 skipped, 0 waiting\r\n"));
}

#[tokio::test]
async fn a_journal_belongs_to_one_template_and_one_process() {
    let mailing = Mailing::new(Server::builder(), TEMPLATE, &csv(2)).await;
    mailing.run(&[]).await.exits_with(0);
    mailing.write(
        "template.eml",
        TEMPLATE.replace("read the news", "read more"),
    );
    mailing
        .run(&[])
        .await
        .exits_with(65)
        .says("belongs to other messages");
    mailing.write("template.eml", TEMPLATE);
    let journal = envoi::Journal::open(mailing.path("journal")).await.unwrap();
    mailing
        .run(&[])
        .await
        .exits_with(74)
        .says("in use by another process");
    journal.close().await.unwrap();
    mailing.write("journal", "something else\n");
    mailing
        .run(&[])
        .await
        .exits_with(74)
        .says("is not a journal");
    let missing = mailing.path("missing/journal");
    let mut arguments = mailing.arguments(&[]);
    *arguments.last_mut().unwrap() = missing;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    program::run("bulk", &arguments, b"", &[])
        .await
        .exits_with(74);
    assert_eq!(mailing.server.messages().len(), 2);
}

/// Nothing is sent that could not be recorded.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_stops_the_mailing() {
    let mailing = Mailing::new(Server::builder(), TEMPLATE, &csv(500)).await;
    let arguments = mailing.arguments(&["--json"]);
    // The journal may have 20 KiB.
    let script = "ulimit -f 20; trap '' XFSZ; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(program::path("bulk"))
        .args(&arguments)
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(
        stderr.contains("cannot be used: File too large"),
        "{stderr}"
    );
    let sent = mailing.received();
    assert!(!sent.is_empty() && sent.len() < 500, "{}", sent.len());
    let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum = |names: &[&str]| -> u64 {
        names
            .iter()
            .map(|name| &counts[name])
            .map(|count| count.as_u64().unwrap())
            .sum()
    };
    assert_eq!(sum(&["sent", "unknown"]), sent.len() as u64, "{counts}");
    assert_eq!(sum(&["sent", "unknown", "waiting"]), 500, "{counts}");
    // Each message that was sent is in the journal, so none is sent twice.
    let counts = mailing.counts(&[], 79).await;
    assert_eq!(counts.iter().sum::<u64>(), 500);
    assert!(
        mailing
            .received()
            .values()
            .all(|messages| messages.len() == 1)
    );
}

/// The first signal ends the mailing after the messages in flight, and the second one at once.
#[cfg(unix)]
#[tokio::test]
async fn an_interrupted_mailing_leaves_lines_waiting() {
    let slow = Fault::delay(Step::Accepted, Duration::from_millis(10));
    let hanging = Fault::hang(Step::Accepted).after(20);
    for (fault, signals, code) in [(slow, &["INT"][..], 75), (hanging, &["TERM", "INT"], 79)] {
        let mailing = Mailing::new(Server::builder().fault(fault), TEMPLATE, &csv(1000)).await;
        let mut child = Command::new(program::path("bulk"))
            .args(mailing.arguments(&["--json"]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let received = mailing.server.wait_for(20, Duration::from_secs(60)).await;
        received.unwrap();
        for signal in signals {
            let id = child.id().unwrap().to_string();
            let kill = Command::new("kill").args(["-s", signal, &id]).status();
            assert!(kill.await.unwrap().success());
            if *signal == signals[0] {
                let line = stderr.next_line().await.unwrap().unwrap();
                assert!(line.starts_with("Interrupted: "), "{line}");
            }
        }
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(code));
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| counts[name].as_u64().unwrap();
        assert_eq!(count("unknown") > 0, code == 79, "{counts}");
        assert!(count("waiting") > 0, "{counts}");
        assert_eq!(count("sent") + count("unknown") + count("waiting"), 1000);
        mailing.server.clear_faults();
        let counts = mailing.counts(&[], if code == 79 { 79 } else { 0 }).await;
        assert_eq!([counts[0], counts[4]], [count("waiting"), 0]);
        let received = mailing.received();
        assert!(received.values().all(|messages| messages.len() == 1));
    }
}

/// A reader of standard error that has gone away does not change what is sent.
#[tokio::test]
async fn a_closed_standard_error_is_ignored() {
    let server = Server::builder().refuse_recipient("user1@example.com", "550 5.1.1 No such user");
    let mailing = Mailing::new(server, TEMPLATE, &csv(20)).await;
    let mut child = Command::new(program::path("bulk"))
        .args(mailing.arguments(&["--json"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(69));
    let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&counts["sent"], &counts["refused"]),
        (&json!(19), &json!(1))
    );
}

#[tokio::test]
async fn the_rate_and_the_connections_are_limited() {
    let mailing = Mailing::new(Server::builder(), TEMPLATE, &csv(40)).await;
    let began = std::time::Instant::now();
    let counts = mailing
        .counts(&["--connections", "2", "--rate", "30/s"], 0)
        .await;
    assert_eq!(counts, [40, 0, 0, 0, 0]);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(mailing.server.connections().len() <= 2);
}

fn number_in(variable: &str, default: usize) -> usize {
    let value = std::env::var(variable).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

/// Killed at random points, with a faulty server: each recipient is accepted exactly once, or
/// listed as in doubt. `ENVOI_BULK_RECIPIENTS` and `ENVOI_BULK_KILLS` set how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mailing_sends_nothing_twice() {
    let recipients = number_in("ENVOI_BULK_RECIPIENTS", 500);
    let kills = number_in("ENVOI_BULK_KILLS", 5);
    let server = Server::builder()
        .offer("CHUNKING")
        .fault(Fault::delay(Step::Accepted, Duration::from_millis(2)))
        .fault(Fault::reply(Step::Message, "451 4.3.0 Try later").one_in(40, 1))
        .fault(Fault::reply(Step::Mail, "421 4.3.2 Going down").one_in(120, 2))
        .fault(Fault::reply(Step::Rcpt, "450 4.2.1 Busy").one_in(60, 3))
        .fault(Fault::close(Step::Data).one_in(200, 4))
        .fault(Fault::close(Step::Message).one_in(300, 5))
        .fault(Fault::close(Step::Accepted).one_in(300, 6));
    let mailing = Mailing::new(server, TEMPLATE, &csv(recipients)).await;
    let mut random = random_numbers(17);
    for kill in 0..kills {
        let mut child = Command::new(program::path("bulk"))
            .args(mailing.arguments(&[]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // At a random number of messages: those that are left are shared by the runs that are left.
        let before = mailing.server.messages().len();
        let each = (recipients.saturating_sub(before) / (kills - kill + 1)).max(1);
        let at = before + 1 + random() as usize % each;
        tokio::select! {
            // It may have sent all that it could.
            _ = child.wait() => {}
            // If fewer come, it has ended.
            _ = mailing.server.wait_for(at, Duration::from_secs(60)) => {
                child.start_kill().unwrap();
                child.wait().await.unwrap();
            }
        }
    }
    // Then until nothing is left.
    let last = loop {
        let run = mailing.run(&["--json"]).await;
        let counts: Value = run.json();
        let total: u64 = counts
            .as_object()
            .unwrap()
            .values()
            .map(|n| n.as_u64().unwrap())
            .sum();
        assert_eq!(
            total, recipients as u64,
            "each line is counted once: {counts}"
        );
        if counts["waiting"] == 0 {
            break run;
        }
    };
    let in_doubt: BTreeSet<String> = last
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("in doubt: ")?.split(':').next())
        .map(str::to_owned)
        .collect();
    last.exits_with(if in_doubt.is_empty() { 0 } else { 79 });
    let received = mailing.received();
    for (to, messages) in &received {
        assert_eq!(messages.len(), 1, "{to} got it more than once");
    }
    for number in 0..recipients {
        let to = format!("user{number}@example.com");
        assert!(
            received.contains_key(&to) || in_doubt.contains(&to),
            "{to} was neither accepted nor is in doubt"
        );
    }
    println!(
        "{} received, {} in doubt after {kills} kills",
        received.len(),
        in_doubt.len()
    );
    // Only messages in flight can be in doubt, and few of them.
    assert!(
        in_doubt.len() < recipients / 2,
        "{} in doubt",
        in_doubt.len()
    );
}

/// Numbers that are the same in each run (xorshift).
fn random_numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
