//! The table of calls and states in the documentation of `proto`, compared with the machine.

use crate::address::Address;
use crate::proto::{
    ClientName, Machine, Mechanism, RawCommand, Reason, Settings, StartTls, State, Step,
    Transaction,
};
use crate::secret::Credentials;

const DOCUMENTATION: &str = include_str!("../mod.rs");

const STATES: [State; 12] = [
    State::Greeting,
    State::Hello,
    State::StartTls,
    State::Upgrade,
    State::Ready,
    State::Authenticating,
    State::Transaction,
    State::Body,
    State::Quitting,
    State::Refused,
    State::Ending,
    State::Closed,
];

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn transaction() -> Transaction {
    let mut transaction = Transaction::open(Some(address("me@example.org")));
    transaction.recipients = vec![address("you@example.com"), address("she@example.com")];
    transaction
}

/// Takes all events, and writes the output.
fn settle(machine: &mut Machine) {
    while let Ok(Step::Event(_)) = machine.step() {}
    let waiting = machine.output().len();
    machine.wrote(waiting);
}

fn feed(machine: &mut Machine, replies: &str) {
    settle(machine);
    assert_eq!(machine.input(replies.as_bytes()), replies.len());
    settle(machine);
}

fn ready(offers: &str) -> Machine {
    let mut settings = Settings::new(ClientName::new("me").unwrap());
    settings.auth_in_clear = true;
    if offers == "STARTTLS" {
        settings.starttls = StartTls::IfOffered;
    }
    let mut machine = Machine::new(settings);
    feed(&mut machine, "220 hello\r\n");
    let offers: String = offers
        .split(' ')
        .map(|offer| format!("250-{offer}\r\n"))
        .collect();
    feed(
        &mut machine,
        &format!("250-hello\r\n{offers}250 AUTH LOGIN\r\n"),
    );
    machine
}

/// A machine in this state.
fn machine(state: State) -> Machine {
    let mut machine = match state {
        State::Greeting | State::Hello | State::Refused => {
            Machine::new(Settings::new(ClientName::new("me").unwrap()))
        }
        State::StartTls | State::Upgrade => ready("STARTTLS"),
        State::Ending => ready("PIPELINING CHUNKING"),
        _ => ready("HELP"),
    };
    match state {
        State::Greeting | State::StartTls | State::Ready => {}
        State::Hello => feed(&mut machine, "220 hello\r\n"),
        State::Upgrade => feed(&mut machine, "220 go\r\n"),
        State::Authenticating => call(&mut machine, "login").unwrap(),
        State::Transaction => {
            machine.mail(None.into()).unwrap();
            feed(&mut machine, "250 ok\r\n");
            machine.rcpt(address("you@example.com")).unwrap();
            feed(&mut machine, "250 ok\r\n");
        }
        State::Body => {
            machine.begin(transaction()).unwrap();
            ["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"]
                .into_iter()
                .for_each(|reply| feed(&mut machine, reply));
        }
        State::Quitting => machine.quit().unwrap(),
        State::Refused => feed(&mut machine, "554 no\r\n"),
        State::Ending => {
            for _ in 0..2 {
                let mut transaction = transaction();
                transaction.size = Some(3);
                machine.begin(transaction).unwrap();
                machine.body("x\r\n").unwrap();
                machine.finish().unwrap();
            }
            feed(&mut machine, "250 ok\r\n421 bye\r\n");
        }
        State::Closed => machine.input_ended(),
    }
    settle(&mut machine);
    assert_eq!(machine.state, state);
    machine
}

/// A machine that holds the end of a message back.
fn machine_with_held_message() -> Machine {
    let mut machine = ready("HELP");
    let mut transaction = transaction();
    transaction.hand_over = true;
    machine.begin(transaction).unwrap();
    ["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"]
        .into_iter()
        .for_each(|reply| feed(&mut machine, reply));
    machine.finish().unwrap();
    settle(&mut machine);
    assert_eq!(machine.step(), Ok(Step::Handover));
    machine
}

fn call(machine: &mut Machine, name: &str) -> Result<(), Reason> {
    let result = match name {
        "upgraded" => machine.upgraded(),
        "login" => machine.login(Mechanism::Login, &Credentials::new("user", "password")),
        "begin" => machine.begin(transaction()),
        "mail" => machine.mail(None.into()),
        "rcpt" => machine.rcpt(address("she@example.com")),
        "data" => machine.data(),
        "body" => machine.body("x\r\n"),
        "finish" => machine.finish(),
        "hand_over" => machine.hand_over(),
        "withdraw" => machine.withdraw(),
        "reset" => machine.reset(),
        "noop" => machine.noop(),
        "command" => machine.command(&RawCommand::new("HELP").unwrap()),
        "quit" => machine.quit(),
        _ => panic!("{name} is not a call"),
    };
    result.map_err(|error| error.reason().clone())
}

#[test]
fn the_table_of_calls_is_what_the_machine_does() {
    let table: Vec<Vec<&str>> = DOCUMENTATION
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|line| line.trim_end_matches(" |").split(" | ").collect())
        .collect();
    let (head, rows) = table.split_first().expect("the table is there");
    assert_eq!(rows.len(), 14);
    let mut documented = Vec::new();
    for row in rows {
        let name = row[0].split('`').nth(1).expect("the name of the call");
        for (states, cell) in head.iter().zip(row).skip(1) {
            for state in states.split(", ") {
                documented.push(state);
                let known = STATES
                    .into_iter()
                    .find(|known| format!("{known:?}") == state);
                let mut machine = match known {
                    Some(known) => machine(known),
                    None if state == "Handover" => machine_with_held_message(),
                    None => panic!("{state} is not a state of the machine"),
                };
                let result = call(&mut machine, name);
                let is_as_documented = match *cell {
                    "yes" => result.is_ok(),
                    "–" => matches!(result, Err(Reason::OutOfTurn { .. })),
                    "over" => result == Err(Reason::SessionOver),
                    cell => panic!("{cell:?} has no meaning"),
                };
                assert!(is_as_documented, "{name} in {state}: {result:?}");
            }
        }
    }
    assert_eq!(documented.len(), 14 * (STATES.len() + 1));
}
