//! IP addresses made coarse: the network that an address lies in, and nothing of the host.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Bits of an IPv6 address that stay: 48.
const GROUPS_V6: usize = 3;

/// Appends the network of the address that `text` spells as a JSON string, or returns false when it spells none. IPv4
/// keeps 24 bits, IPv6 48; an IPv4 address in IPv6 (`::ffff:a.b.c.d`) is masked, and written, as IPv4.
pub fn ip(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        v4(address, out);
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        match address.to_ipv4_mapped() {
            Some(address) => v4(address, out),
            None => v6(address, out),
        }
    } else {
        return false;
    }
    true
}

fn v4(address: Ipv4Addr, out: &mut Vec<u8>) {
    out.push(b'"');
    for part in &address.octets()[..3] {
        let hundreds = part / 100;
        if hundreds > 0 {
            out.push(b'0' + hundreds);
        }
        if *part > 9 {
            out.push(b'0' + part / 10 % 10);
        }
        out.extend_from_slice(&[b'0' + part % 10, b'.']);
    }
    out.extend_from_slice(b"0\"");
}

fn v6(address: Ipv6Addr, out: &mut Vec<u8>) {
    let mut groups = address.segments();
    groups[GROUPS_V6..].fill(0);
    // Display writes RFC 5952's form.
    out.extend_from_slice(format!("\"{}\"", Ipv6Addr::from(groups)).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::ip;

    fn masked(text: &str) -> Option<String> {
        let mut out = Vec::new();
        ip(text.as_bytes(), &mut out).then(|| String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn networks() {
        for (text, wanted) in [
            ("192.168.1.77", "192.168.1.0"),
            ("0.0.0.0", "0.0.0.0"),
            ("255.100.9.1", "255.100.9.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("2001:DB8::1", "2001:db8::"),
            ("::1", "::"),
            ("::ffff:1.2.3.4", "1.2.3.0"),
            ("::FFFF:102:304", "1.2.3.0"),
            ("::1.2.3.4", "::"),
            ("64:ff9b::1.2.3.4", "64:ff9b::"),
        ] {
            assert_eq!(masked(text), Some(format!("\"{wanted}\"")), "{text}");
        }
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            "1.2.3.4 ",
            " 1.2.3.4",
            "fe80::1%eth0",
            "[::1]",
            "1.2.3.4:80",
            "localhost",
            "1.2.3.4/24",
            "16909060",
            "::ffff:1.2.3",
            "1::2::3",
        ] {
            assert_eq!(masked(text), None, "{text}");
        }
    }
}
