//! A registry whose every answer is written by the test.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn host(&self) -> &str {
        self.header("host").unwrap_or_default()
    }

    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// How long a stall lasts: longer than any client of the tests waits.
const STALL: Duration = Duration::from_mins(1);

enum Manner {
    Whole,
    CutAfter(usize),
    StallAfter(usize),
    StallBefore,
    Drip,
    Slowly,
}

/// An answer.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    length: bool,
    manner: Manner,
}

impl Reply {
    pub(crate) fn of(body: &[u8]) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_vec(),
            length: true,
            manner: Manner::Whole,
        }
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn replace(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self.with(name, value)
    }

    pub(crate) fn without_length(mut self) -> Self {
        self.length = false;
        self
    }

    pub(crate) fn cut_after(self, bytes: usize) -> Self {
        Self { manner: Manner::CutAfter(bytes), ..self }
    }

    pub(crate) fn stall_after(self, bytes: usize) -> Self {
        Self { manner: Manner::StallAfter(bytes), ..self }
    }

    pub(crate) fn stall_before(self) -> Self {
        Self { manner: Manner::StallBefore, ..self }
    }

    pub(crate) fn drip(self) -> Self {
        Self { manner: Manner::Drip, ..self }
    }

    pub(crate) fn slowly(self) -> Self {
        Self { manner: Manner::Slowly, ..self }
    }

    fn send(self, head_only: bool, stream: &mut TcpStream) -> std::io::Result<()> {
        if matches!(self.manner, Manner::StallBefore) {
            thread::sleep(STALL);
        }
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (key, value) in &self.headers {
            write!(head, "{key}: {value}\r\n").unwrap();
        }
        if self.length {
            write!(head, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if head_only {
            return Ok(());
        }
        match self.manner {
            Manner::Whole | Manner::StallBefore => stream.write_all(&self.body),
            Manner::CutAfter(bytes) => stream.write_all(&self.body[..bytes.min(self.body.len())]),
            Manner::StallAfter(bytes) => {
                stream.write_all(&self.body[..bytes])?;
                thread::sleep(STALL);
                Ok(())
            }
            Manner::Drip => self.body.iter().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(100));
                stream.write_all(&[*byte])
            }),
            Manner::Slowly => self.body.chunks(200_000).try_for_each(|chunk| {
                thread::sleep(Duration::from_millis(30));
                stream.write_all(chunk)
            }),
        }
    }
}

/// A running server; it ends with the test.
pub(crate) struct Server {
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || converse(stream, &seen, &*answer));
            }
        });
        Self { host, asked }
    }

    /// Returns the requests whose path has `part` in it.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }
}

fn converse(mut stream: TcpStream, seen: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Reply) {
    let mut first = [0];
    if !matches!(stream.peek(&mut first), Ok(1)) || first[0] == 0x16 {
        // A TLS hello: as a server that does not speak it.
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        return;
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap()).take(64 << 10);
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let mut words = line.split_whitespace();
    let head_only = words.next() == Some("HEAD");
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((key, value)) = line.split_once(':') {
            headers.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let asked = Asked { path, headers };
    seen.lock().unwrap().push(asked.clone());
    let _ = answer(&asked).send(head_only, &mut stream);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = std::io::copy(&mut stream.take(1 << 20), &mut std::io::sink());
}
