//! The state of the files that TLS settings name, to notice that they have changed.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that was modified more recently may be modified again without a visible change: time
/// stamps are as coarse as two seconds (FAT).
const UNSETTLED: Duration = Duration::from_secs(2);

/// The interval in which a store that is not in files is assumed to be unchanged.
#[cfg(any(windows, target_os = "macos"))]
const STORE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The state of files and folders at a point in time. It is taken before they are read, so a change
/// between the two only causes that they are read again.
#[derive(Debug)]
pub(super) struct FileState {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// Whether every change since then is visible: not that of a FIFO or a device, nor that of a
    /// file that was modified just before.
    is_settled: bool,
}

impl Default for FileState {
    /// The state of no files.
    fn default() -> Self {
        FileState {
            stamps: Vec::new(),
            is_settled: true,
        }
    }
}

/// Identifies the contents of a file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// The device, the inode, and the time of its last change, which cannot be set.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl FileState {
    /// Adds a file, or a folder with the files in it. Blocks on file I/O.
    pub(super) fn add(&mut self, path: &Path) {
        let metadata = fs::metadata(path).ok();
        if metadata.as_ref().is_some_and(Metadata::is_dir)
            && let Ok(entries) = fs::read_dir(path)
        {
            let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort_unstable();
            for path in paths {
                let metadata = fs::metadata(&path).ok();
                // Subfolders, FIFOs and devices in a folder are not read.
                self.push(path, metadata.filter(Metadata::is_file));
            }
        } else if metadata
            .as_ref()
            .is_some_and(|metadata| !metadata.is_file())
        {
            self.is_settled = false;
        }
        self.push(path.to_owned(), metadata);
    }

    fn push(&mut self, path: PathBuf, metadata: Option<Metadata>) {
        let stamp = metadata.as_ref().map(Stamp::new);
        // A time in the future was set, or is that of a clock that was wrong: the next change has
        // another.
        let is_old = |modified: SystemTime| match modified.elapsed() {
            Ok(age) => age > UNSETTLED,
            Err(ahead) => ahead.duration() > UNSETTLED,
        };
        if let Some(stamp) = &stamp {
            self.is_settled &= stamp.modified.is_some_and(is_old);
        }
        self.stamps.push((path, stamp));
    }

    /// Adds the files of the system's store, as `rustls-native-certs` finds them.
    pub(super) fn add_system(&mut self) {
        let named = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
        let (file, folders) = (named("SSL_CERT_FILE"), named("SSL_CERT_DIR"));
        if file.is_none() && folders.is_none() {
            return self.add_platform();
        }
        if let Some(file) = file {
            self.add(Path::new(&file));
        }
        for folder in folders.iter().flat_map(std::env::split_paths) {
            self.add(&folder);
        }
    }

    #[cfg(all(unix, not(target_os = "macos")))]
    fn add_platform(&mut self) {
        let found = openssl_probe::probe();
        for path in found.cert_file.iter().chain(&found.cert_dir) {
            self.add(path);
        }
    }

    #[cfg(any(windows, target_os = "macos"))]
    fn add_platform(&mut self) {
        use std::sync::LazyLock;
        use std::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let intervals = START.elapsed().as_secs() / STORE_INTERVAL.as_secs();
        self.stamps
            .push((PathBuf::from(intervals.to_string()), None));
    }

    /// Whether every later change is visible in another state.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Whether the files are certainly the same as in `other`.
    pub(super) fn is_same(&self, other: &FileState) -> bool {
        self.is_settled && other.is_settled && self.stamps == other.stamps
    }
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Stamp {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: (
                metadata.dev(),
                metadata.ino(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ),
        }
    }
}

/// The state of the files of TLS settings.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) trust: FileState,
    pub(super) client: FileState,
}

impl Files {
    /// Whether every later change is visible.
    pub(super) fn are_settled(&self) -> bool {
        self.trust.is_settled() && self.client.is_settled()
    }
}
