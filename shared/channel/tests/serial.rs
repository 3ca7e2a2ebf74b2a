//! Both ends of the serial port against each other, a socket pair in place of the port.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::{bridge, connect, guest};
use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(20);

/// A guest that echoes on port 7, and after end-of-file says so; on port 8 it says nothing and
/// reads nothing; on port 9 it sends until nobody reads.
fn serve_guest(device: UnixStream) {
    let _ = guest::serve(device, |mut stream| {
        thread::spawn(move || {
            let Ok(port) = guest::greet(&mut stream, &[7, 8, 9]) else { return };
            let mut buffer = vec![0; 32 << 10];
            match port {
                7 => loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => {
                            let _ = stream.write_all(b"<end>");
                            return;
                        }
                        Ok(n) => {
                            if stream.write_all(&buffer[..n]).is_err() {
                                return;
                            }
                        }
                        Err(_) => return,
                    }
                },
                8 => thread::sleep(LIMIT),
                _ => while stream.write_all(&buffer).is_ok() {},
            }
        });
    });
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> (Self, UnixListener) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("channel.sock")).unwrap();
        (Self { dir }, listener)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("channel.sock")
    }
}

fn start() -> Place {
    let (place, listener) = Place::new();
    let (host, guest) = UnixStream::pair().unwrap();
    thread::spawn(move || bridge::run(listener, bridge::Device::Port(host)).unwrap());
    thread::spawn(move || serve_guest(guest));
    place
}

/// Sends bytes to the echo and checks that the same come back, then the end.
fn echo(socket: &Path, bytes: &[u8]) {
    let mut stream = connect(socket, 7, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.to_vec();
    let thread = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    thread.join().unwrap();
    assert_eq!(back.len(), bytes.len() + 5);
    assert!(back[..bytes.len()] == *bytes && back.ends_with(b"<end>"));
}

/// Bytes with marks in them, which are the hard case.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut bytes: Vec<u8> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    for at in (0..count.saturating_sub(32)).step_by(9973) {
        bytes[at..at + 16].copy_from_slice(b"\xf3banger-meet-v1\xf7");
    }
    bytes
}

#[test]
fn sixty_four_mebibytes_both_ways() {
    echo(&start().socket(), &noise(64 << 20));
}

#[test]
fn many_streams_at_once_each_with_its_own_bytes() {
    let place = start();
    let socket = place.socket();
    thread::scope(|scope| {
        for n in 0..200 {
            let socket = &socket;
            scope.spawn(move || echo(socket, &noise(10_000 + n * 997)));
        }
    });
}

#[test]
fn a_reader_who_does_not_read_holds_up_nobody_else() {
    let place = start();
    let _deaf: Vec<_> = (0..8).map(|_| connect(&place.socket(), 9, LIMIT).unwrap()).collect();
    let mut mute = connect(&place.socket(), 8, LIMIT).unwrap();
    mute.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // A bounded amount is taken for a guest that does not read.
    let mut taken = 0;
    let error = loop {
        match mute.write(&[0; 4096]) {
            Ok(n) => taken += n,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(taken < 2 << 20, "{taken} bytes were taken");
    echo(&place.socket(), &noise(1 << 20));
}

#[test]
fn a_port_nobody_serves_is_refused_at_once() {
    let place = start();
    let begun = Instant::now();
    let error = connect(&place.socket(), 4000, LIMIT).unwrap_err();
    assert!(error.to_string().contains("refused"), "{}", error.chain());
    assert!(begun.elapsed() < LIMIT / 2);
    echo(&place.socket(), b"still here");
}

#[test]
fn clients_that_say_nonsense_are_closed() {
    let place = start();
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"CONNECT \n", b"CONNECT 1x\n", &[0xff; 64]] {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(nonsense).unwrap();
        // Closed with bytes unread, a socket says reset instead of end.
        let end = stream.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    echo(&place.socket(), b"still here");
}

#[test]
fn bytes_right_behind_the_line_are_not_lost() {
    let place = start();
    let mut stream = UnixStream::connect(place.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"CONNECT 7\nhi").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "OK 7\nhi<end>");
}

#[test]
fn a_client_waits_for_an_agent_that_is_on_its_way() {
    let (place, listener) = Place::new();
    let (host, guest) = UnixStream::pair().unwrap();
    thread::spawn(move || bridge::run(listener, bridge::Device::Port(host)).unwrap());
    let error = connect(&place.socket(), 7, Duration::from_millis(100)).unwrap_err();
    assert!(error.chain().contains("in time"), "{}", error.chain());
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        serve_guest(guest);
    });
    echo(&place.socket(), b"early");
}

/// Over vsock the guest's end calls, and calls again when it begins anew.
#[test]
fn a_guest_that_calls_is_served_whenever_it_does() {
    let (place, listener) = Place::new();
    let socket = place.dir.path().join("calls.sock");
    let calls = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || bridge::run(listener, bridge::Device::Calls(calls)).unwrap());
    let call = || UnixStream::connect(&socket).unwrap();
    let early = thread::spawn({
        let socket = place.socket();
        move || echo(&socket, b"early")
    });
    thread::sleep(Duration::from_millis(100));
    let first = call();
    let end = first.try_clone().unwrap();
    thread::spawn(move || serve_guest(first));
    early.join().unwrap();
    let mut carried = connect(&place.socket(), 7, LIMIT).unwrap();
    carried.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    // It ends, which ends what it carried, and whoever comes before the next call waits for that.
    end.shutdown(Shutdown::Both).unwrap();
    let mut rest = Vec::new();
    carried.read_to_end(&mut rest).expect("an end, and no silence");
    assert_eq!(rest, b"");
    let waiting = thread::spawn({
        let socket = place.socket();
        move || echo(&socket, &vec![b'x'; 1 << 20])
    });
    thread::sleep(Duration::from_millis(100));
    let second = call();
    thread::spawn(move || serve_guest(second));
    waiting.join().unwrap();
    // One that calls while another is connected takes its place.
    let third = call();
    thread::spawn(move || serve_guest(third));
    echo(&place.socket(), b"again");
}

/// Copies between two sockets; stops in the middle of everything when told, leaving both open.
fn relay(mut from: UnixStream, mut to: UnixStream, stop: mpsc::Receiver<()>) {
    from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = [0; 1021];
    while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[test]
fn the_guest_end_restarts_in_the_middle_of_a_stream() {
    let (place, listener) = Place::new();
    let (host, port) = UnixStream::pair().unwrap();
    thread::spawn(move || bridge::run(listener, bridge::Device::Port(host)).unwrap());
    for _ in 0..10 {
        let (inner, guest) = UnixStream::pair().unwrap();
        let (stop_in, stopped_in) = mpsc::channel();
        let (stop_out, stopped_out) = mpsc::channel();
        let copies = [
            (port.try_clone().unwrap(), inner.try_clone().unwrap(), stopped_in),
            (inner.try_clone().unwrap(), port.try_clone().unwrap(), stopped_out),
        ];
        let relays: Vec<_> =
            copies.into_iter().map(|(a, b, s)| thread::spawn(move || relay(a, b, s))).collect();
        thread::spawn(move || serve_guest(guest));
        echo(&place.socket(), &noise(100_000));
        let mut busy = connect(&place.socket(), 9, LIMIT).unwrap();
        busy.read_exact(&mut vec![0; 100_000]).unwrap();
        let mut writer = connect(&place.socket(), 7, LIMIT).unwrap();
        writer.write_all(&noise(100_000)).unwrap();
        // Bytes are cut off wherever they are, both ways.
        stop_in.send(()).unwrap();
        stop_out.send(()).unwrap();
        for relay in relays {
            relay.join().unwrap();
        }
        inner.shutdown(Shutdown::Both).unwrap();
        drop(writer);
    }
}

#[test]
fn the_host_end_restarts_and_old_clients_are_let_go() {
    let (host, guest) = UnixStream::pair().unwrap();
    thread::spawn(move || serve_guest(guest));
    for _ in 0..10 {
        let (place, listener) = Place::new();
        let (inner, ours) = UnixStream::pair().unwrap();
        let thread =
            thread::spawn(move || bridge::run(listener, bridge::Device::Port(ours)).unwrap());
        let (stop_in, stopped_in) = mpsc::channel();
        let (stop_out, stopped_out) = mpsc::channel();
        let copies = [
            (host.try_clone().unwrap(), inner.try_clone().unwrap(), stopped_in),
            (inner.try_clone().unwrap(), host.try_clone().unwrap(), stopped_out),
        ];
        let relays: Vec<_> =
            copies.into_iter().map(|(a, b, s)| thread::spawn(move || relay(a, b, s))).collect();
        echo(&place.socket(), &noise(50_000));
        let mut busy = connect(&place.socket(), 9, LIMIT).unwrap();
        busy.read_exact(&mut vec![0; 100_000]).unwrap();
        stop_in.send(()).unwrap();
        stop_out.send(()).unwrap();
        for relay in relays {
            relay.join().unwrap();
        }
        inner.shutdown(Shutdown::Both).unwrap();
        thread.join().unwrap();
        busy.set_read_timeout(Some(LIMIT)).unwrap();
        let mut rest = Vec::new();
        let _ = busy.read_to_end(&mut rest);
    }
}

#[test]
fn a_hostile_guest_neither_stops_nor_swells_the_bridge() {
    let (place, listener) = Place::new();
    let (host, mut guest) = UnixStream::pair().unwrap();
    thread::spawn(move || bridge::run(listener, bridge::Device::Port(host)).unwrap());
    guest.set_write_timeout(Some(LIMIT)).unwrap();
    let mut ask = b"\xf3banger-meet-v1\xf7\x02".to_vec();
    ask.extend([9; 8]);
    ask.extend([0; 8]);
    let (stop, stopped) = mpsc::channel();
    let reader = guest.try_clone().unwrap();
    let reader = thread::spawn(move || swallow(reader, stopped));
    for n in 0..2000_u32 {
        ask[18] = (n % 256) as u8;
        guest.write_all(&ask).unwrap();
        guest.write_all(&noise(700)).unwrap();
    }
    stop.send(()).unwrap();
    reader.join().unwrap();
    // And after all that, an honest agent takes over.
    guest.set_read_timeout(None).unwrap();
    thread::spawn(move || serve_guest(guest));
    echo(&place.socket(), &noise(100_000));
}

/// Reads and forgets until told to stop.
fn swallow(mut from: UnixStream, stop: mpsc::Receiver<()>) {
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let _ = from.read(&mut [0; 4096]);
    }
}
