//! Attacks on envoi: a hostile server, a faulty network, a careless caller.
//!
//! Each file tests one promise of SECURITY.md, and each case in it is a known attack or a breach of
//! a section of an RFC. Everything runs in memory on a paused clock, or on the loopback interface
//! where the system itself is involved. The results of a single bad reply are in `tests/dialogues`
//! and `tests/failures`.
//!
//! Each guard was removed by hand, and a test failed:
//!
//! | Promise | Tests in | Removed guard | Failed |
//! |---|---|---|---|
//! | Limits on what the server controls | `limits`, `memory`, `proxies` | the limit of a line | `floods_end_in_protocol_errors`, `endless_challenges_end_the_login` |
//! | | | of a reply and of its lines | `each_limit_can_be_set_and_is_named_in_its_error`, `memory` |
//! | | | of the number and the length of challenges | `endless_challenges_end_the_login` |
//! | | | of unread input | `unread_bytes_are_bounded`, `replies_after_a_failed_write_are_bounded` |
//! | | | one time-out for a reply, however many reads it takes | `a_slow_server_times_out_in_each_phase` |
//! | | | the time-outs of a login and of the total wait, which grows with the recipients | `a_slow_login_times_out`, `a_slow_server_times_out_in_each_phase` |
//! | | | the time-outs of the handshake and of QUIT, the minimum rate | `handshake_body_and_quit_have_timeouts` |
//! | | | the time-out of connecting, the limit of the head of a proxy's reply | `proxies` |
//! | STARTTLS | `starttls` | the check for bytes after the go-ahead, required TLS, the protection of logins | `injected_and_stripped_starttls_fails_without_a_login` |
//! | | | the refusal of a second STARTTLS | `starttls_offered_inside_tls_is_ignored` |
//! | | | forgetting the capabilities received in clear | `planted_capabilities_are_gone_before_the_next_ehlo` |
//! | | | the refusal to fall back with a login | `a_disturbed_handshake_never_leads_to_a_login_in_clear` |
//! | | | the error for a truncated reply | `truncated_tls_gives_no_success`, `desync` |
//! | Injection, smuggling | `injection`, `smuggling` | the checks of addresses, commands and client names for control characters, and of commands that change the state | `no_argument_adds_a_command` |
//! | | | the checks of headers for line breaks, and for addresses that end early | `no_value_adds_a_header`, `no_display_name_adds_a_mailbox` |
//! | | | the check of hosts | `no_host_or_url_adds_a_line` |
//! | | | the checks of logins, authorization identities and traces for NUL and \x01, and their place before connecting | `no_credential_adds_a_field`, `invalid_requests_fail_before_connecting` |
//! | | | dot-stuffing, the repair of a bare CR and of a bare LF | all of `smuggling` |
//! | | | the refusal of NUL in text, in the machine and before connecting | `a_nul_in_text_is_refused` |
//! | Order | `desync` | the violation by an unexpected reply, by success before the end, and by 421 | `unexpected_replies_are_violations`, `a_421_to_any_command_ends_with_its_text` |
//! | | | the check for unread input before a command | `bytes_after_the_final_reply_change_no_outcome` |
//! | | | reading while writing | `early_replies_to_a_large_message_cause_no_deadlock` |
//! | At most once | `at_most_once`, `network` | the unknown outcome | all of `at_most_once`, `network`, `limits` |
//! | | | the outcomes of the other messages of a window | `a_window_of_messages_stores_each_at_most_once_wherever_the_server_dies` |
//! | Cancellation | `cancel`, `cancel_client`, `pool` | the mark of a dropped call | all of `cancel`, `pool` |
//! | | | the error of a body that failed before | `a_failed_body_never_reports_its_end` |
//! | Secrets | `secrets`, `proxies`, `memory` | the removal of secrets from replies, malformed replies and unread input: escaped once and twice, in base64 within other bytes, in hexadecimal digits, across lines | `an_echoed_secret_is_hidden_in_any_form` |
//! | | | from the driver's reason; from a proxy's reply and what follows it | `a_drivers_reason_holds_no_secret`, `proxies` |
//! | | | the replacement of control characters and invisible characters in replies, errors, the transcript, certificates, paths of trust stores, receipts | `control_characters_in_replies_are_replaced`, all of `terminal` |
//! | | | the wiping of secrets and of the lines that hold them | `memory` |
//! | Faulty networks | `network` | the unknown outcome, the outcomes of other messages, dot-stuffing | `random_network_faults_lose_and_duplicate_nothing` |
//!
//! Several guards prevent that a message with an unknown outcome is sent again: the outcomes of its
//! recipients, the kind of the error, and the error itself.

mod at_most_once;
mod cancel;
mod cancel_client;
mod desync;
mod injection;
mod limits;
mod linear;
#[cfg(target_os = "linux")]
mod memory;
mod network;
mod pool;
mod proxies;
mod script;
mod secrets;
mod server;
mod smuggling;
mod starttls;
mod terminal;
