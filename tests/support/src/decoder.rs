//! What a server makes of the bytes of a message: a decoder that knows nothing of the one that
//! stuffs.

/// The text as a server must get it: each line ends with CRLF, the last one too.
pub fn normalised(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&&b'\n');
                lines.extend_from_slice(b"\r\n");
            }
            b'\n' => lines.extend_from_slice(b"\r\n"),
            byte => lines.push(*byte),
        }
    }
    if !lines.is_empty() && !lines.ends_with(b"\n") {
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// Takes the dots out of a message as the strictest server would (RFC 5321, 2.3.8 and 4.5.2).
///
/// # Errors
///
/// A CR or LF that is no line end, or an end of the message that is missing or not at the end.
pub fn unstuffed(wire: &[u8]) -> Result<Vec<u8>, String> {
    let (mut message, mut rest) = (Vec::new(), wire);
    loop {
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .ok_or("the message does not end")?;
        let (line, behind) = (&rest[..end], &rest[end + 2..]);
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Err(format!(
                "a bare line end in {:?}",
                String::from_utf8_lossy(line)
            ));
        }
        match line {
            b"." if behind.is_empty() => return Ok(message),
            b"." => return Err("the message ends before its end".into()),
            line => message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line)),
        }
        message.extend_from_slice(b"\r\n");
        rest = behind;
    }
}
