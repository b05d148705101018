//! envoi under attack: a hostile server, a bad network, a careless caller. Nothing gets through,
//! nothing is lost.
//!
//! Each file is about one promise (SECURITY.md), and each case in it is an attack that has a name
//! or breaks a section of an RFC. All is in memory on a paused clock, or on the loopback interface
//! where the system itself is to be asked. What a single bad reply leads to is in tests/dialogues
//! and tests/failures.
//!
//! Each guard was taken out by hand, and a case fell:
//!
//! | Promise | Cases in | Taken out | Fell |
//! |---|---|---|---|
//! | Limits on what the server controls | `limits`, `memory`, `proxies` | a line | `floods`, `challenges` |
//! | | | a reply; its lines | `each_limit_can_be_set_and_is_named`, `memory` |
//! | | | the number and the length of challenges | `challenges` |
//! | | | what is held unread | `bytes_unread`, `last_words_without_an_end` |
//! | | | one limit for a reply, however many reads it takes | `time_in_each_phase_and_in_all` |
//! | | | the limit for a login; for all waiting, with what each recipient adds | `time_in_a_login`, `time_in_each_phase_and_in_all` |
//! | | | the time of a handshake, the lowest rate, the time of QUIT | `time_in_what_is_no_dialogue` |
//! | | | the time of connecting; the head of a proxy's answer | `proxies` |
//! | STARTTLS | `starttls` | the look at bytes behind the go-ahead, TLS that is required, protection for a login | `injection_and_stripping` |
//! | | | no second STARTTLS | `offered_again_inside` |
//! | | | what was learnt in clear is forgotten | `what_was_planted_is_gone_with_the_handshake` |
//! | | | no fall back with a login | `a_handshake_that_is_disturbed_brings_no_login_into_the_clear` |
//! | | | a reply that is cut off | `truncation`, `order` |
//! | Injection, smuggling | `injection`, `smuggling` | control characters in addresses, commands and the client's name; commands that change the state | `what_stands_in_a_command` |
//! | | | line breaks, and addresses that end early, in headers | `what_stands_in_a_header`, `a_header_that_would_name_somebody_else` |
//! | | | the host | `a_host_or_a_url` |
//! | | | NUL and \x01 in logins, for whom is acted, too, and in traces; the look before connecting | `users_passwords_and_tokens`, `what_cannot_be_said_is_not_connected_for` |
//! | | | the doubled dot, the bare CR, the bare LF | all of `smuggling` |
//! | | | no NUL in text: in the machine; in what can be looked at before | `no_nul_in_text` |
//! | Order | `order` | the violation by a reply that nobody asked for; success before the end; 421 | `replies_out_of_order`, `going_down_anywhere_ends_cleanly_with_its_text` |
//! | | | the look at what is unread before a command | `what_follows_the_answer_changes_nothing` |
//! | | | reading while writing | `no_deadlock_in_a_large_message` |
//! | At most once | `once`, `network` | the unknown outcome | all of `once`, `network`, `limits` |
//! | | | what became of the others in a window | `a_window_of_messages_and_a_server_that_is_killed_at_each_step` |
//! | Cancellation | `cancel`, `cancel_client`, `pool` | the mark of a call that was given up | all of `cancel`, `pool` |
//! | | | a body that failed stays so | `what_failed_has_no_end` |
//! | Secrets | `secrets`, `proxies`, `memory` | secrets taken out of replies, of what is no reply, of what is unread, escaped once and twice, in base64 amid other bytes, in hexadecimal digits, and across lines | `an_echo_in_any_form_from_any_mechanism` |
//! | | | out of what a driver says; out of a proxy's words, and those behind it | `what_a_driver_says_of_the_end`, `proxies` |
//! | | | what a terminal obeys, or what cannot be seen, replaced: in replies, errors, the transcript, certificates, the paths of trust stores, receipts | `words_for_the_terminal`, all of `terminal` |
//! | | | the wiping of secrets, and of the lines they go in | `memory` |
//! | Bad networks | `network` | the unknown outcome, what became of the others, dots | `whatever_the_weather` |
//!
//! That a message whose outcome is unknown is not sent again is guarded more than once: by what its
//! recipients are told, by its kind of error, and by name.

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
