//! Stores for tests: a file, and servers of their own on free ports.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;

/// A store in a temporary folder.
pub struct TestStore {
    folder: TempDir,
    server: Server,
}

enum Server {
    None,
    Postgres { port: u16, programs: PathBuf },
    Redis { port: u16, process: Child },
}

impl TestStore {
    pub fn sqlite() -> Self {
        TestStore {
            folder: TempDir::new().unwrap(),
            server: Server::None,
        }
    }

    /// A PostgreSQL server, run by the user `postgres` where this one is root.
    pub fn postgres() -> Self {
        let folder = TempDir::new().unwrap();
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed")
            .map(|entry| entry.unwrap().path().join("bin"))
            .collect();
        versions.sort();
        let store = TestStore {
            server: Server::Postgres {
                port: free_port(),
                programs: versions.pop().expect("PostgreSQL is installed"),
            },
            folder,
        };
        if rustix::process::getuid().is_root() {
            let mut chown = Command::new("chown");
            assert!(run(chown.arg("postgres").arg(store.folder.path())));
        }
        let options = ["-D", "data", "-A", "trust", "-U", "outbox"];
        assert!(store.postgres_program("initdb", &options));
        assert!(store.control_postgres("start"));
        let port = store.port().to_string();
        let host = ["-h", "127.0.0.1", "-p", &port, "-U", "outbox", "outbox"];
        assert!(store.postgres_program("createdb", &host));
        store
    }

    /// A Redis server that syncs its log at every command.
    pub fn redis() -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let process = start_redis(folder.path(), port);
        TestStore {
            folder,
            server: Server::Redis { port, process },
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        match &self.server {
            Server::None => format!("sqlite:{}/mail.db", self.folder.path().display()),
            Server::Postgres { port, .. } => {
                format!("postgres://outbox@127.0.0.1:{port}/outbox")
            }
            Server::Redis { port, .. } => format!("redis://127.0.0.1:{port}"),
        }
    }

    fn port(&self) -> u16 {
        match self.server {
            Server::None => 0,
            Server::Postgres { port, .. } | Server::Redis { port, .. } => port,
        }
    }

    /// Executes a statement of SQL.
    pub async fn execute(&self, statement: &'static str) {
        match &self.server {
            Server::None => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
                connection.execute(statement).await.unwrap();
            }
            Server::Postgres { .. } => {
                let mut connection = sqlx::PgConnection::connect(&self.url()).await.unwrap();
                connection.execute(statement).await.unwrap();
            }
            Server::Redis { .. } => panic!("Redis has no SQL"),
        }
    }

    /// Keeps other processes from writing to SQLite until the connection is dropped.
    pub async fn lock(&self) -> sqlx::SqliteConnection {
        let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
        connection
            .execute("PRAGMA busy_timeout = 60000")
            .await
            .unwrap();
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        connection
    }

    /// Makes the tables those of a newer version of the program.
    pub async fn make_newer(&self) {
        match &self.server {
            Server::Redis { .. } => self.redis_command(&["INCR", "outbox:version"]).await,
            _ => {
                let statement = "UPDATE outbox_version SET version = version + 1";
                self.execute(statement).await;
            }
        }
    }

    /// Sends a command to the Redis server.
    pub async fn redis_command<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (name, arguments) = command.split_first().unwrap();
        let mut command = redis::cmd(name);
        command.arg(arguments);
        command.query_async(&mut connection).await.unwrap()
    }

    /// Crashes the server of the store, and starts it again.
    pub fn crash(&mut self) {
        let port = self.port();
        match &mut self.server {
            Server::None => return,
            Server::Redis { process, .. } => {
                process.kill().unwrap();
                process.wait().unwrap();
                *process = start_redis(self.folder.path(), port);
                return;
            }
            Server::Postgres { .. } => {}
        }
        assert!(self.control_postgres("stop"));
        assert!(self.control_postgres("start"));
    }

    fn control_postgres(&self, action: &str) -> bool {
        let options = format!(
            "-p {} -k {} -h 127.0.0.1",
            self.port(),
            self.folder.path().display()
        );
        let mut arguments = vec!["-D", "data", "-w", "-l", "log", "-m", "immediate"];
        if action == "start" {
            arguments.truncate(5);
            arguments.extend(["-o", &options]);
        }
        arguments.push(action);
        self.postgres_program("pg_ctl", &arguments)
    }

    fn postgres_program(&self, name: &str, arguments: &[&str]) -> bool {
        let Server::Postgres { programs, .. } = &self.server else {
            return false;
        };
        let program = programs.join(name);
        let mut command = match rustix::process::getuid().is_root() {
            true => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        run(command.args(arguments).current_dir(self.folder.path()))
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        match &mut self.server {
            Server::None => {}
            Server::Redis { process, .. } => {
                let _ = process.kill();
                let _ = process.wait();
            }
            // It may not have started, and a second panic would end all tests.
            Server::Postgres { .. } => {
                let _ = self.control_postgres("stop");
            }
        }
    }
}

fn start_redis(folder: &Path, port: u16) -> Child {
    let process = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .arg("--dir")
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("Redis is installed");
    let deadline = Instant::now() + Duration::from_secs(20);
    // A server has no other way to say that it is ready.
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "Redis does not start");
        sleep(Duration::from_millis(10));
    }
    process
}

/// A port for a server that takes no port 0, or that starts later. It is below those that systems
/// give to outgoing connections: one of these could have it before the server starts, or while it
/// is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = std::process::id().wrapping_mul(97).wrapping_add(number);
        let port = 20_000 + (number % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs a program, and returns whether it succeeded.
fn run(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).status().unwrap();
    if !status.success() {
        eprintln!("{command:?}: {status}");
    }
    status.success()
}
