//! A client of the API that does what it is told, well-behaved or not.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::process::PATIENCE;

/// A socket of the API.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// Its body.
    pub body: Value,
}

impl Api {
    /// At a path.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A connection.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("connecting to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE)).context("bounding the time to read")?;
        Ok(stream)
    }

    /// Gets a path.
    ///
    /// # Errors
    ///
    /// No answer comes.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    /// Deletes what is at a path.
    ///
    /// # Errors
    ///
    /// No answer comes.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.say(format!("DELETE {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    /// Posts to a path, JSON or nothing.
    ///
    /// # Errors
    ///
    /// No answer comes.
    pub fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.post_as(path, "application/json", body.as_bytes())
    }

    /// Posts anything, called anything.
    ///
    /// # Errors
    ///
    /// No answer comes.
    pub fn post_as(&self, path: &str, kind: &str, body: &[u8]) -> Result<Answer> {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        self.say(&[head.as_bytes(), body].concat())
    }

    /// Sends bytes and reads the answer.
    ///
    /// # Errors
    ///
    /// None comes.
    pub fn say(&self, bytes: &[u8]) -> Result<Answer> {
        let mut stream = self.connect()?;
        // Who is refused early may find nobody to send the rest to; the answer is there all the same.
        if let Err(error) = stream.write_all(bytes)
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(error).context("sending a request");
        }
        read(&mut stream)
    }
}

/// Reads the answer on a connection that ends after it.
///
/// # Errors
///
/// None comes.
pub fn read(stream: &mut UnixStream) -> Result<Answer> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !bytes.is_empty() => {}
        result => drop(result.context("reading an answer")?),
    }
    let text = String::from_utf8_lossy(&bytes);
    let unread = || anyhow!("not an answer of HTTP: {text:?}");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(unread)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(unread)?;
    // What the parser of HTTP refuses has no body.
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).context("JSON")? };
    Ok(Answer { status, body })
}

/// Whether the other end closes the connection while a byte is sent now and then. It may answer before.
///
/// # Errors
///
/// It is still open after so many bytes.
pub fn trickle(stream: &mut UnixStream, bytes_max: usize) -> Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_millis(20))).context("reading now and then")?;
    for _ in 0..bytes_max {
        if stream.write_all(b"x").is_err() {
            return Ok(());
        }
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return Ok(()),
        }
    }
    Err(anyhow!("the connection is open after {bytes_max} bytes that came slowly"))
}
