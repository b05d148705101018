//! TLS reports (RFC 8460): what a domain's servers did with TLS, summed up for the domain.
//!
//! - A [`TlsEvent`] is the result of one session, or of a policy that could not be had.
//! - [`TlsReports`] sums events up. Its [`report`](TlsReports::report) is that of a day for a
//!   domain, in the JSON of the RFC.
//! - A [`TlsRptRecord`] says where a domain wants its reports.
//!
//! Sending is the caller's, once a day, after the end of the day in UTC: by `POST` to an https
//! destination, or as a message, signed by DKIM, that is sent whatever TLS does (RFC 8460, 5).
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use envoi::mx::tls_report::{
//!     AppliedPolicy, ReportDestination, ResultType, TlsEvent, TlsReports, TlsRptRecord,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reports = TlsReports::new("Example Inc.", "postmaster@example.org");
//!
//! // Events come from the client; this one is made by hand.
//! let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(19_675 * 86_400 + 43_200);
//! let domain = "example.com".parse()?;
//! let mut event = TlsEvent::new(noon, domain, AppliedPolicy::none("example.com".parse()?));
//! event.mx_host = Some("mx.example.com".parse()?);
//! event.address = Some("192.0.2.1".parse()?);
//! reports.add(&event);
//! reports.add(&event.with_failure(ResultType::StartTlsNotSupported, ""));
//!
//! // The next day:
//! for domain in reports.domains(noon) {
//!     let report = reports.report(&domain, noon).expect("there are events");
//!     assert_eq!(report.policies[0].successful_sessions, 1);
//!     assert_eq!(report.policies[0].failed_sessions, 1);
//!     // The TXT records of _smtp._tls.example.com.
//!     let txt = [&b"v=TLSRPTv1; rua=mailto:tls@example.com"[..]];
//!     for destination in TlsRptRecord::from_txt(txt)?.iter().flat_map(|record| &record.rua) {
//!         match destination {
//!             ReportDestination::Mailto(address) => println!("{address}: {}", report.to_json()),
//!             ReportDestination::Https(url) => println!("{url}: {}", report.to_json()),
//!             _ => {}
//!         }
//!     }
//! }
//! reports.forget_until(noon);
//! # Ok(())
//! # }
//! ```

mod event;
mod record;
mod report;
mod sum;

pub use event::{AppliedPolicy, PolicyType, ResultType, TlsEvent, TlsFailure};
pub use record::{ReportDestination, TlsRptRecord, TlsRptRecordError};
pub use report::{FailureDetail, PolicyReport, TlsReport};
pub use sum::TlsReports;
