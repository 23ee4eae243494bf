//! DER element by element, with the bytes as they were signed.
//!
//! The typed readers of certificates keep no raw bytes, and what a signature covers must never be encoded again.

use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier, UtcTime};
use x509_cert::der::{Decode, Error, ErrorKind, Header, Reader as _, SliceReader, Tag, TagNumber};

/// One element: tag, length and value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub tag: Tag,
    /// With tag and length.
    pub whole: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The one element that `bytes` are.
    pub fn only(bytes: &'a [u8], tag: Tag) -> Result<Self, Error> {
        let mut elements = Elements::new(bytes)?;
        let element = elements.expect(tag)?;
        elements.end()?;
        Ok(element)
    }

    /// The elements that its value is made of.
    pub fn elements(&self) -> Result<Elements<'a>, Error> {
        Elements::new(self.value)
    }

    /// It as a typed value.
    pub fn decode<T: Decode<'a>>(&self) -> Result<T, Error> {
        T::from_der(self.whole)
    }

    /// Seconds since 1970 of a `Time`: a UTCTime or a GeneralizedTime without fractions.
    pub fn time(&self) -> Result<u64, Error> {
        let since = match self.tag {
            Tag::UtcTime => self.decode::<UtcTime>()?.to_unix_duration(),
            _ => self.decode::<GeneralizedTime>()?.to_unix_duration(),
        };
        Ok(since.as_secs())
    }
}

/// Elements one after the other.
#[derive(Debug, Clone)]
pub(super) struct Elements<'a> {
    bytes: &'a [u8],
    reader: SliceReader<'a>,
}

impl<'a> Elements<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self {
            bytes,
            reader: SliceReader::new(bytes)?,
        })
    }

    /// The next element, of any tag.
    pub fn next(&mut self) -> Result<Element<'a>, Error> {
        let start = usize::try_from(self.reader.position())?;
        let header = Header::decode(&mut self.reader)?;
        let value = self.reader.read_slice(header.length)?;
        let end = usize::try_from(self.reader.position())?;
        let whole = self.bytes.get(start..end).ok_or(ErrorKind::Overlength)?;
        Ok(Element {
            tag: header.tag,
            whole,
            value,
        })
    }

    pub fn expect(&mut self, tag: Tag) -> Result<Element<'a>, Error> {
        let element = self.next()?;
        element.tag.assert_eq(tag)?;
        Ok(element)
    }

    /// The next element if it has this tag.
    pub fn optional(&mut self, tag: Tag) -> Result<Option<Element<'a>>, Error> {
        if !self.is_at_end() && self.reader.peek_tag()? == tag {
            return self.next().map(Some);
        }
        Ok(None)
    }

    pub fn oid(&mut self) -> Result<ObjectIdentifier, Error> {
        self.expect(Tag::ObjectIdentifier)?.decode()
    }

    pub fn is_at_end(&self) -> bool {
        self.reader.is_finished()
    }

    pub fn end(self) -> Result<(), Error> {
        self.reader.finish(())
    }
}

/// The tag `[number]` of a constructed value.
pub(super) const fn context(number: TagNumber) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number,
    }
}
