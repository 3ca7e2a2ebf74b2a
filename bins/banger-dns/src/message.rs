//! Messages of DNS (RFC 1035, section 4; RFC 6891 for OPT): one question, at most one address. That there is
//! none is said with the record that lets a resolver keep it (RFC 2308).

use std::net::IpAddr;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const TYPE_ANY: u16 = 255;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
/// The zone, as a name in a message.
const ZONE: &[u8] = b"\x02vm\0";
/// The zone's person, `nobody` there, as a name in a message.
const PERSON: &[u8] = b"\x06nobody\x02vm\0";
/// How long an answer may be kept, in seconds: a VM may end at any moment.
const KEEP_S: u32 = 1;

/// A question of somebody's.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    id: [u8; 2],
    /// Whether it is a query, of a kind that is answered here.
    is_plain: bool,
    wants_recursion: bool,
    /// The question as it came, to be said again.
    section: &'a [u8],
    labels: Vec<String>,
    kind: u16,
    class: u16,
    /// Whether it came with an OPT record, so that the answer has one.
    extended: bool,
}

/// What is known.
#[derive(Debug)]
pub(crate) enum Answer {
    Address(IpAddr),
    /// The name is there and has no address.
    Nothing,
    NoSuchName,
    /// Somebody else's name.
    NotOurs,
}

impl<'a> Question<'a> {
    /// Reads a message; nothing if it deserves no answer.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        let number =
            |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let flags = number(2)?;
        // An answer, or not just one question.
        if flags & 0x8000 != 0 || number(4)? != 1 {
            return None;
        }
        let mut labels = Vec::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // A question has no pointers; a name has at most 127 labels.
            if length > 63 || labels.len() == 127 {
                return None;
            }
            let label = message.get(at..at + length)?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += length;
        }
        let (kind, class) = (number(at)?, number(at + 2)?);
        let end = at + 4;
        // The root's name, then the type.
        let extended = number(10)? > 0
            && number(6)? == 0
            && number(8)? == 0
            && message.get(end) == Some(&0)
            && number(end + 1) == Some(TYPE_OPT);
        Some(Self {
            id: [message[0], message[1]],
            is_plain: flags & 0x7800 == 0,
            wants_recursion: flags & 0x0100 != 0,
            section: &message[HEADER..end],
            labels,
            kind,
            class,
            extended,
        })
    }

    /// Returns the name, in small letters.
    pub(crate) fn labels(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    /// Puts an answer into bytes.
    pub(crate) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let (code, authority) = match answer {
            _ if !self.is_plain => (4, false),
            Answer::Address(_) | Answer::Nothing => (0, true),
            Answer::NoSuchName => (3, true),
            Answer::NotOurs => (5, false),
        };
        let data = match answer {
            Answer::Address(IpAddr::V4(address)) if self.asks_for(TYPE_A) => {
                Some((TYPE_A, address.octets().to_vec()))
            }
            Answer::Address(IpAddr::V6(address)) if self.asks_for(TYPE_AAAA) => {
                Some((TYPE_AAAA, address.octets().to_vec()))
            }
            _ => None,
        };
        let data = data.filter(|_| self.is_plain);
        let is_zone = self.labels == ["vm"] && self.asks_for(TYPE_SOA) && self.is_plain;
        let is_absent = authority && data.is_none() && !is_zone;
        let flags =
            0x8000_u16 | u16::from(authority) << 10 | u16::from(self.wants_recursion) << 8 | code;
        let mut bytes = self.id.to_vec();
        bytes.extend(flags.to_be_bytes());
        let answers = u16::from(data.is_some() || is_zone);
        for count in [1, answers, u16::from(is_absent), u16::from(self.extended)] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(self.section);
        if let Some((kind, data)) = data {
            // The name is the question's.
            bytes.extend([0xc0, HEADER as u8]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(CLASS_IN.to_be_bytes());
            bytes.extend(KEEP_S.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        if is_zone || is_absent {
            bytes.extend(authority_record());
        }
        if self.extended {
            bytes.push(0);
            bytes.extend(TYPE_OPT.to_be_bytes());
            bytes.extend(1232_u16.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    fn asks_for(&self, kind: u16) -> bool {
        [CLASS_IN, CLASS_ANY].contains(&self.class) && [kind, TYPE_ANY].contains(&self.kind)
    }
}

/// The record of the zone (RFC 1035, section 3.3.13). Its last number says how long an absence may be kept.
fn authority_record() -> Vec<u8> {
    let mut data = [ZONE, PERSON].concat();
    for number in [1, 3600, 600, 86_400, KEEP_S] {
        data.extend(number.to_be_bytes());
    }
    let mut bytes = ZONE.to_vec();
    bytes.extend(TYPE_SOA.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(KEEP_S.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        bytes.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        bytes
    }

    #[test]
    fn an_address_is_said_of_its_own_kind_only() {
        let bytes = ask("WEB.vm", TYPE_A);
        let question = Question::read(&bytes).unwrap();
        assert_eq!(question.labels(), ["web", "vm"]);
        let said = question.answer(&Answer::Address("127.64.1.2".parse().unwrap()));
        assert_eq!(said[..12], [7, 9, 0x85, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
        // The question comes back as it was asked.
        assert_eq!(said[12..bytes.len()], bytes[12..]);
        assert_eq!(said[bytes.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 64, 1, 2]);
        let bytes = ask("web.vm", TYPE_AAAA);
        let question = Question::read(&bytes).unwrap();
        let said = question.answer(&Answer::Address("127.64.1.2".parse().unwrap()));
        assert_eq!(said[..12], [7, 9, 0x85, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
        assert_eq!(said[bytes.len()..], authority_record());
    }

    #[test]
    fn what_is_absent_may_be_kept_as_long_as_the_zone_says() {
        let bytes = ask("web.vm", TYPE_A);
        let question = Question::read(&bytes).unwrap();
        for (answer, counts) in [
            (Answer::Nothing, [0, 0, 0, 1]),
            (Answer::NoSuchName, [0, 0, 0, 1]),
            (Answer::NotOurs, [0, 0, 0, 0]),
        ] {
            let said = question.answer(&answer);
            assert_eq!(said[6..10], counts, "{answer:?}");
        }
        let record = authority_record();
        assert_eq!(record[..4], *b"\x02vm\0");
        assert_eq!(record[4..14], [0, 6, 0, 1, 0, 0, 0, 1, 0, 35]);
        assert_eq!((record.len(), &record[45..]), (49, &[0, 0, 0, 1][..]));
        // The zone itself has that record, and nothing else.
        let bytes = ask("vm", TYPE_SOA);
        let said = Question::read(&bytes).unwrap().answer(&Answer::Nothing);
        assert_eq!(said[6..10], [0, 1, 0, 0]);
        assert_eq!(said[bytes.len()..], record);
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_not_ours() {
        let bytes = ask("web.vm", TYPE_A);
        let question = Question::read(&bytes).unwrap();
        assert_eq!(question.answer(&Answer::NoSuchName)[2..4], [0x85, 3]);
        assert_eq!(question.answer(&Answer::NotOurs)[2..4], [0x81, 5]);
        let mut update = bytes.clone();
        update[2] |= 5 << 3;
        let said = Question::read(&update).unwrap().answer(&Answer::Address([1, 2, 3, 4].into()));
        assert_eq!((said[3] & 0xf, said[7]), (4, 0));
    }

    #[test]
    fn an_extended_question_has_an_extended_answer() {
        let mut bytes = ask("web.vm", TYPE_A);
        let plain = bytes.len();
        bytes[11] = 1;
        bytes.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let said = Question::read(&bytes).unwrap().answer(&Answer::Nothing);
        assert_eq!((said[11], said.len()), (1, plain + 49 + 11));
    }

    #[test]
    fn nonsense_is_passed_over() {
        let whole = ask("web.vm", TYPE_A);
        for size in 0..whole.len() {
            assert!(Question::read(&whole[..size]).is_none(), "{size} bytes");
        }
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert!(Question::read(&pointer).is_none());
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert!(Question::read(&answer).is_none());
        let mut two = whole;
        two[5] = 2;
        assert!(Question::read(&two).is_none());
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..state % 64)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    state as u8
                })
                .collect();
            if let Some(question) = Question::read(&noise) {
                question.answer(&Answer::NoSuchName);
            }
            state = state.wrapping_add(1);
        }
    }
}
