//! ClientHellos made to order.

/// The parts of a ClientHello.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Cipher suites.
    pub ciphers: Vec<u16>,
    /// Extensions: type and content.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// What a browser says: server name, protocols, signature algorithms, versions, and a key share of `share_bytes` bytes.
    pub fn browser(share_bytes: usize) -> Self {
        Self {
            ciphers: vec![0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f],
            extensions: vec![
                (0x2a2a, Vec::new()),
                (0x0000, vec![0, 6, 0, 0, 3, b'a', b'.', b'b']),
                (0x0017, Vec::new()),
                (0x0010, vec![0, 12, 2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1']),
                (0x0033, vec![9; share_bytes]),
                (0x000d, numbers(2, &[0x0403, 0x0804, 0x0401])),
                (0x002b, numbers(1, &[0x3a3a, 0x0304, 0x0303])),
            ],
        }
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let extensions: Vec<u8> =
            self.extensions.iter().flat_map(|(kind, content)| extension(*kind, content)).collect();
        let mut body = vec![3, 3];
        body.extend([7; 32]); // random
        body.push(32);
        body.extend([8; 32]); // session id
        body.extend(numbers(2, &self.ciphers));
        body.extend([1, 0]); // no compression
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = (1 << 24 | body.len() as u32).to_be_bytes().to_vec();
        message.extend(body);
        message
    }

    /// The message in records of up to so many bytes.
    pub fn records(&self, bytes: usize) -> Vec<u8> {
        let record = |piece: &[u8]| {
            let length = (piece.len() as u16).to_be_bytes();
            [&[22, 3, 1], &length[..], piece].concat()
        };
        self.message().chunks(bytes).flat_map(record).collect()
    }

    /// The message in one record.
    pub fn stream(&self) -> Vec<u8> {
        self.records(1 << 14)
    }
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
}

/// A list of numbers behind its length of one or two bytes.
fn numbers(length_bytes: usize, values: &[u16]) -> Vec<u8> {
    let length = (2 * values.len() as u16).to_be_bytes();
    let values = values.iter().flat_map(|value| value.to_be_bytes());
    length[2 - length_bytes..].iter().copied().chain(values).collect()
}
