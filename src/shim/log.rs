//! The shim's log: one logfmt line per record into the `log` FIFO of the bundle, which containerd reads. Standard
//! error is never used, since containerd takes it for part of the answer.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;

/// Sends what is logged from now on to the FIFO at `path`. Without a reader lines are dropped: a shim that waits for
/// a reader of its log would be a shim that hangs.
pub fn init(path: &Path, debug: bool) {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let Ok(fifo) = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open(path)
    else {
        return;
    };
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    // Fails only when a logger is set already, which then stays.
    let _ = log::set_boxed_logger(Box::new(Fifo(Mutex::new(fifo))));
}

struct Fifo<W>(Mutex<W>);

impl<W: Write + Send> Log for Fifo<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!(
            "time=\"{}\" level={} msg={:?} runtime=io.containerd.assay.v1\n",
            jiff::Timestamp::now(),
            record.level().as_str().to_lowercase(),
            record.args().to_string(),
        );
        if let Ok(mut fifo) = self.0.lock() {
            // A full FIFO has no reader; the line is lost, as said above.
            let _: io::Result<usize> = fifo.write(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_it_says() {
        let fifo = Fifo(Mutex::new(Vec::new()));
        log::set_max_level(LevelFilter::Info);
        fifo.log(
            &Record::builder()
                .level(log::Level::Warn)
                .args(format_args!("two\nlines \"quoted\""))
                .build(),
        );
        let text = String::from_utf8(fifo.0.into_inner().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(r#"level=warn msg="two\nlines \"quoted\"" runtime="#),
            "{text}"
        );
    }
}
