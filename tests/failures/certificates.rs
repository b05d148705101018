//! Certificates that are not accepted.

use std::time::{Duration, SystemTime};

use envoi::tls::Trust;
use envoi::{Endpoint, ErrorKind, Phase};
use rcgen::{
    CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, RevokedCertParams,
};
use tokio_rustls::rustls::ServerConfig;

use crate::case::{Case, Party, World, authority, case, leaf, play};
use crate::servers::{Server, config};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A little more, so that the words are the same all the while the tests run.
const DAYS: Duration = Duration::from_secs(3 * 24 * 60 * 60 + 600);

fn signed_by_root(params: rcgen::CertificateParams, world: &World) -> ServerConfig {
    config(&[&Party::new(params, Some(&world.root))])
}

fn expired_leaf(world: &World) -> ServerConfig {
    let mut params = leaf(&["localhost"]);
    params.not_before = (SystemTime::now() - 90 * DAY).into();
    params.not_after = (SystemTime::now() - DAYS).into();
    signed_by_root(params, world)
}

fn not_yet_valid(world: &World) -> ServerConfig {
    let mut params = leaf(&["localhost"]);
    params.not_before = (SystemTime::now() + DAYS).into();
    signed_by_root(params, world)
}

fn expired_intermediate(world: &World) -> ServerConfig {
    let mut params = authority("Old Intermediate");
    params.not_before = (SystemTime::now() - 90 * DAY).into();
    params.not_after = (SystemTime::now() - DAYS).into();
    let middle = Party::new(params, Some(&world.root));
    config(&[&Party::new(leaf(&["localhost"]), Some(&middle)), &middle])
}

/// The extension that says where the issuer's certificate is (RFC 5280, 4.2.2.1), as public
/// authorities write it.
fn issued_to_be_found(world: &World) -> ServerConfig {
    let address = "http://ca.example/intermediate.crt";
    let length = address.len() as u8;
    let mut der = vec![
        0x30,
        length + 14,
        0x30,
        length + 12,
        6,
        8,
        0x2B,
        6,
        1,
        5,
        5,
        7,
        0x30,
        2,
        0x86,
        length,
    ];
    der.extend_from_slice(address.as_bytes());
    let mut params = leaf(&["localhost"]);
    params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 5, 5, 7, 1, 1],
        der,
    )];
    config(&[&Party::new(params, Some(&world.middle))])
}

fn without_intermediate(world: &World) -> ServerConfig {
    config(&[&Party::new(leaf(&["localhost"]), Some(&world.middle))])
}

fn of_the_same_name(_: &World) -> ServerConfig {
    let namesake = Party::authority("Example Root", None);
    config(&[&Party::new(leaf(&["localhost"]), Some(&namesake))])
}

fn with_many_names(world: &World) -> ServerConfig {
    let names: Vec<String> = (1..=12)
        .map(|number| format!("mx{number}.example.net"))
        .collect();
    signed_by_root(
        leaf(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        world,
    )
}

fn for_clients(world: &World) -> ServerConfig {
    let mut params = leaf(&["localhost"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed_by_root(params, world)
}

/// A server's certificate under an authority of this kind, which the root issued.
fn under(params: rcgen::CertificateParams, world: &World) -> ServerConfig {
    let middle = Party::new(params, Some(&world.root));
    config(&[&Party::new(leaf(&["localhost"]), Some(&middle)), &middle])
}

fn under_an_authority_for_mail(world: &World) -> ServerConfig {
    let mut params = authority("Mail Authority");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    under(params, world)
}

fn under_an_authority_with_limits(world: &World) -> ServerConfig {
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::OrganizationName, "Example");
    let permitted_subtrees = vec![rcgen::GeneralSubtree::DirectoryName(name)];
    let mut params = authority("Limited Authority");
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees,
        excluded_subtrees: vec![],
    });
    under(params, world)
}

fn under_an_authority_with_an_extension(world: &World) -> ServerConfig {
    let mut extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 36], vec![0x30, 0x00]);
    extension.set_criticality(true);
    let mut params = authority("Odd Authority");
    params.custom_extensions = vec![extension];
    under(params, world)
}

fn under_too_many_authorities(world: &World) -> ServerConfig {
    let mut params = authority("Upper Authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let upper = Party::new(params, Some(&world.root));
    let lower = Party::authority("Lower Authority", Some(&upper));
    config(&[
        &Party::new(leaf(&["localhost"]), Some(&lower)),
        &lower,
        &upper,
    ])
}

fn with_dates_in_the_wrong_order(world: &World) -> ServerConfig {
    let mut params = leaf(&["localhost"]);
    params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    signed_by_root(params, world)
}

fn numbered(world: &World) -> ServerConfig {
    let mut params = leaf(&["localhost"]);
    params.serial_number = Some(77.into());
    signed_by_root(params, world)
}

/// A list of the root's that has the certificate above.
fn with_revocation_list(endpoint: Endpoint, world: &World) -> Endpoint {
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(4000, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: 77.into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let path = world.folder.path().join("revoked.pem");
    std::fs::write(
        &path,
        list.signed_by(&world.root.issuer).unwrap().pem().unwrap(),
    )
    .unwrap();
    endpoint.trust(Trust::empty().pem(&world.root.pem).revocation_list(path))
}

#[tokio::test]
async fn certificate_failures_have_their_pinned_texts() {
    let shown = |name, config, host| -> Case {
        let url = if host == "localhost" {
            "smtp://localhost:{port}"
        } else {
            "smtp://127.0.0.1:{port}"
        };
        case(
            name,
            Server::StartTls(config, &[]),
            url,
            ErrorKind::Tls,
            Phase::Tls,
            76,
        )
    };
    let cases = vec![
        shown(
            "issued by an authority that is not trusted",
            |world| {
                config(&[
                    &Party::new(leaf(&["localhost"]), Some(&world.other)),
                    &world.other,
                ])
            },
            "localhost",
        ),
        shown(
            "issued by an authority that is neither trusted nor sent",
            |world| config(&[&Party::new(leaf(&["localhost"]), Some(&world.other))]),
            "localhost",
        ),
        shown(
            "the intermediate was left out",
            without_intermediate,
            "localhost",
        ),
        shown(
            "the intermediate was left out, and the certificate says where it is",
            issued_to_be_found,
            "localhost",
        ),
        shown(
            "an intermediate of an authority that is not trusted",
            |world| {
                let middle = Party::authority("Unknown Intermediate", Some(&world.other));
                config(&[&Party::new(leaf(&["localhost"]), Some(&middle)), &middle])
            },
            "localhost",
        ),
        shown(
            "self-signed",
            |_| config(&[&Party::new(leaf(&["localhost"]), None)]),
            "localhost",
        ),
        shown("expired", expired_leaf, "localhost"),
        shown("an expired intermediate", expired_intermediate, "localhost"),
        shown("not yet valid", not_yet_valid, "localhost"),
        shown(
            "for another name",
            |world| signed_by_root(leaf(&["mail.example.org", "smtp.example.org"]), world),
            "localhost",
        ),
        shown("for many other names", with_many_names, "localhost"),
        shown(
            "connected by an address that is not in it",
            |world| signed_by_root(leaf(&["localhost", "192.0.2.1"]), world),
            "127.0.0.1",
        ),
        shown(
            "without any name",
            |world| signed_by_root(leaf(&[]), world),
            "localhost",
        ),
        shown(
            "a signature that is not the authority's",
            of_the_same_name,
            "localhost",
        ),
        shown("not for servers", for_clients, "localhost"),
        shown(
            "an authority that is not for servers",
            under_an_authority_for_mail,
            "localhost",
        ),
        shown(
            "limits by directory names",
            under_an_authority_with_limits,
            "localhost",
        ),
        shown(
            "a critical extension that is not known",
            under_an_authority_with_an_extension,
            "localhost",
        ),
        shown(
            "more authorities than one allows",
            under_too_many_authorities,
            "localhost",
        ),
        shown(
            "it ends before it begins",
            with_dates_in_the_wrong_order,
            "localhost",
        ),
        shown("revoked", numbered, "localhost").with(with_revocation_list),
        shown(
            "another key than the pinned one",
            |world| config(&[&world.good()]),
            "localhost",
        )
        .with(|endpoint, _| {
            endpoint
                .trust(Trust::empty().pin("sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
        }),
        case(
            "no authority is trusted",
            Server::NotListening,
            "smtp://localhost:{port}",
            ErrorKind::Config,
            Phase::Setup,
            78,
        )
        .with(|endpoint, _| endpoint.trust(Trust::empty())),
    ];
    play("certificates", cases).await;
}
