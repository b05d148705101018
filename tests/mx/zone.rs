//! Zones as text files, and how they are signed and damaged.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::certificates::Certificates;

/// A zone of `tests/mx/zones`: its records, and directives in comments that begin with `;!`.
pub struct Zone {
    /// Without the final dot; empty for the root.
    pub name: String,
    records: String,
    directives: Vec<Vec<String>>,
}

/// What a zone is signed with.
pub struct Signed {
    /// The DS records that belong into the parent zone, as a zone file has them. Empty if the zone
    /// is not signed.
    pub ds: String,
}

impl Zone {
    /// Reads all zones, subzones before their parents.
    pub fn read_all(folder: &Path) -> Vec<Zone> {
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let mut zones: Vec<Zone> = files.map(|file| Zone::read(&file)).collect();
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.labels()));
        zones
    }

    fn read(file: &Path) -> Zone {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let records = fs::read_to_string(file).unwrap();
        let words = |line: &str| line.split_whitespace().map(String::from).collect();
        Zone {
            name: if name == "root" { "" } else { name }.to_owned(),
            directives: records
                .lines()
                .filter_map(|line| line.strip_prefix(";!"))
                .map(words)
                .collect(),
            records,
        }
    }

    /// Whether this is the zone that delegates to the other.
    pub fn is_parent_of(&self, other: &Zone, zones: &[Zone]) -> bool {
        let contains = |zone: &&Zone| zone.name != other.name && zone.contains(&other.name);
        let parent = zones
            .iter()
            .filter(contains)
            .max_by_key(|zone| zone.labels());
        parent.is_some_and(|parent| parent.name == self.name)
    }

    /// Writes the zone into `FOLDER/NAME.db`, signed if it says so. `delegations` are the records
    /// that the zone has for its subzones.
    pub fn write(
        &self,
        folder: &Path,
        address: &dyn Fn(u8) -> String,
        certificates: &Certificates,
        delegations: &str,
    ) -> Signed {
        let origin = self.origin();
        let text = format!(
            "$ORIGIN {origin}\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n\
             ns A {}\n{}\n{delegations}",
            address(53),
            expand(&self.records, address, certificates),
        );
        let file = self.file(folder);
        if self.directive("missing").is_some() {
            return Signed { ds: String::new() };
        }
        let Some(denial) = self.directive("signed") else {
            fs::write(&file, text).unwrap();
            return Signed { ds: String::new() };
        };
        let algorithm = match self.directive("algorithm") {
            Some([algorithm]) => algorithm,
            _ => "ECDSAP256SHA256",
        };
        let keygen = ["-q", "-K", ".", "-a", algorithm, "-f", "KSK", &origin];
        let key = run(folder, "dnssec-keygen", &keygen);
        let key = format!("{}.key", key.trim());
        let unsigned = format!("{text}\n$INCLUDE {key}\n");
        fs::write(folder.join("unsigned"), unsigned).unwrap();

        let signed = file.file_name().unwrap().to_str().unwrap();
        let mut sign = vec!["-q", "-P", "-z", "-O", "full", "-o", &origin, "-f", signed];
        match denial.first().map(String::as_str) {
            None | Some("nsec") => {}
            Some("nsec3") => sign.extend(["-3", "-", "-H", "0"]),
            Some("nsec3-opt-out") => sign.extend(["-3", "-", "-H", "0", "-A"]),
            Some(other) => panic!("{}: {other}", self.name),
        }
        if self.directive("expired").is_some() {
            sign.extend(["-s", "20200101000000", "-e", "20200201000000"]);
        }
        sign.extend(["unsigned", &key]);
        run(folder, "dnssec-signzone", &sign);
        self.damage(&file);
        let ds = run(folder, "dnssec-dsfromkey", &["-a", "SHA-256", &key]);
        Signed {
            ds: self.change_ds(&ds),
        }
    }

    /// Damages signatures: `;! forge TYPE OWNER` changes one, `;! strip TYPE OWNER` removes it.
    fn damage(&self, file: &Path) {
        let mut lines: Vec<String> = Vec::new();
        let mut damaged = 0;
        let damages = |words: &&Vec<String>| matches!(words[0].as_str(), "forge" | "strip");
        let wanted: Vec<_> = self.directives.iter().filter(damages).collect();
        for line in fs::read_to_string(file).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let damage = wanted.iter().find(|words| {
                let owner = self.absolute(&words[2]);
                fields.get(3) == Some(&"RRSIG") && fields[4] == words[1] && fields[0] == owner
            });
            match damage {
                None => lines.push(line.to_owned()),
                Some(words) => {
                    damaged += 1;
                    if words[0] == "forge" {
                        lines.push(forge(&fields));
                    }
                }
            }
        }
        assert!(damaged >= wanted.len(), "{}: {wanted:?}", self.name);
        fs::write(file, lines.join("\n") + "\n").unwrap();
    }

    /// `;! wrong-ds` changes the hash of the key in the DS records, `;! ds-algorithm N` the number
    /// of the algorithm.
    fn change_ds(&self, ds: &str) -> String {
        let mut fields: Vec<String> = ds.split_whitespace().map(String::from).collect();
        if self.directive("wrong-ds").is_some() {
            fields[6] = fields[6].chars().rev().collect();
        }
        if let Some([number]) = self.directive("ds-algorithm") {
            fields[4].clone_from(number);
        }
        fields.join(" ") + "\n"
    }

    fn directive(&self, name: &str) -> Option<&[String]> {
        let words = self.directives.iter().find(|words| words[0] == name)?;
        Some(&words[1..])
    }

    pub fn file(&self, folder: &Path) -> std::path::PathBuf {
        let name = if self.name.is_empty() {
            "root"
        } else {
            &self.name
        };
        folder.join(format!("{name}.db"))
    }

    pub fn origin(&self) -> String {
        format!("{}.", self.name)
    }

    fn absolute(&self, owner: &str) -> String {
        match (owner, self.name.as_str()) {
            ("@", _) => self.origin(),
            (owner, "") => format!("{owner}."),
            (owner, zone) => format!("{owner}.{zone}."),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.name.is_empty() || name.ends_with(&format!(".{}", self.name))
    }

    fn labels(&self) -> usize {
        self.name
            .split('.')
            .filter(|label| !label.is_empty())
            .count()
    }
}

/// Replaces `{10}` by the address that ends so, and `{tlsa ID USAGE SELECTOR MATCHING}` by the data
/// of a TLSA record for the certificate with this id.
fn expand(text: &str, address: &dyn Fn(u8) -> String, certificates: &Certificates) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').expect("a closing brace");
        let words: Vec<&str> = inner.split_whitespace().collect();
        let number = |word: &str| word.parse::<u8>().expect("a number");
        expanded.push_str(before);
        match words[..] {
            [last] => expanded.push_str(&address(number(last))),
            ["tlsa", id, usage, selector, matching] => {
                let [usage, selector, matching] = [usage, selector, matching].map(number);
                expanded.push_str(&certificates.tlsa(id, usage, selector, matching));
            }
            _ => panic!("{{{inner}}}"),
        }
        rest = after;
    }
    expanded + rest
}

/// The record with another signature.
fn forge(fields: &[&str]) -> String {
    let mut fields: Vec<String> = fields.iter().copied().map(String::from).collect();
    let first = if fields[12].starts_with('A') {
        "B"
    } else {
        "A"
    };
    fields[12].replace_range(..1, first);
    fields.join(" ")
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run tests/mx/install.sh"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
