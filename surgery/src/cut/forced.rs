//! A file whose bytes go to disk while more are written, so that the wait at the
//! end is short: the system by itself begins late, and then the disk is idle
//! while bytes are copied, and the copying while the disk works.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

/// Bytes between two times that what is written is forced to disk.
const FORCED: u64 = 128 << 20;

/// A file that is forced to disk while it is written, so that at the end little is left to wait for.
pub(super) struct Forced {
    file: File,
    /// Bytes since the last time.
    fresh: u64,
    /// Tells the thread below that there is something to do; gone when there is nothing any more.
    more: Option<Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Forced {
    pub fn create(path: &Path) -> io::Result<Forced> {
        let file = File::create(path)?;
        let other = file.try_clone()?;
        let (more, asked) = channel();
        let force = move || {
            while asked.recv().is_ok() {
                // One time does for all that was asked meanwhile.
                while asked.try_recv().is_ok() {}
                other.sync_data()?;
            }
            Ok(())
        };
        let thread = Some(Builder::new().name("force".to_owned()).spawn(force)?);
        Ok(Forced { file, fresh: 0, more: Some(more), thread })
    }

    /// All is on disk.
    pub fn finish(mut self) -> io::Result<()> {
        self.join()?;
        self.file.sync_all()
    }

    fn join(&mut self) -> io::Result<()> {
        self.more = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // An error of the disk is told once, to whoever asks first; that may be the thread.
        thread.join().map_err(|_| io::Error::other("the thread that forces bytes to disk ended"))?
    }
}

impl Write for Forced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.fresh += written as u64;
        if self.fresh >= FORCED {
            self.fresh = 0;
            if let Some(more) = &self.more {
                // A thread that has ended says why when it is joined.
                let _ = more.send(());
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Forced {
    fn drop(&mut self) {
        // Whatever ended the writing is told already.
        let _ = self.join();
    }
}
