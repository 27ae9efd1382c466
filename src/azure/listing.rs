//! The answer of List Blobs: a page of blobs with their leases and metadata.
//!
//! The form is that of "List Blobs" in the REST documentation. Elements that are not known are passed over.

use quick_xml::{Reader, escape::resolve_predefined_entity, events::Event};

use super::metadata::Metadata;

/// One blob of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    /// An active lease, which may be about to be broken.
    pub(super) leased: bool,
    /// That lease never runs out.
    pub(super) infinite: bool,
    pub(super) metadata: Metadata,
}

/// A page, and where the next one starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) blobs: Vec<Listed>,
    pub(super) next: Option<String>,
}

/// Elements that are nested deeper are no listing's, whose own are seven deep at most. What an end of one costs grows
/// with it.
const DEEPEST: usize = 32;

/// Reads a page; `None` when it is cut off, or something else.
pub(super) fn page(body: &[u8]) -> Option<Page> {
    let text = str::from_utf8(body).ok()?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut page = Page::default();
    // The elements that are open, and the text of the innermost.
    let mut path: Vec<String> = Vec::new();
    let mut inside = String::new();
    let mut blob = Listed::default();
    let mut metadata = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(_) if path.len() >= DEEPEST => return None,
            Event::Start(tag) => {
                path.push(tag.name().into_inner().to_owned());
                inside.clear();
            }
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                match names[..] {
                    ["EnumerationResults"] => return Some(page),
                    [_, "NextMarker"] if !inside.is_empty() => page.next = Some(inside.clone()),
                    [_, "Blobs", "Blob"] => {
                        blob.metadata = Metadata::from_pairs(std::mem::take(&mut metadata).into_iter());
                        page.blobs.push(std::mem::take(&mut blob));
                    }
                    [_, "Blobs", "Blob", "Name"] => blob.name.clone_from(&inside),
                    [_, "Blobs", "Blob", "Properties", "LeaseState"] => {
                        blob.leased = matches!(&*inside, "leased" | "breaking");
                    }
                    [_, "Blobs", "Blob", "Properties", "LeaseDuration"] => {
                        blob.infinite = inside == "infinite";
                    }
                    [_, "Blobs", "Blob", "Metadata", name] => {
                        metadata.push((name.to_owned(), std::mem::take(&mut inside)));
                    }
                    _ => {}
                }
                path.pop();
                inside.clear();
            }
            Event::Text(part) => inside.push_str(&part),
            Event::CData(part) => inside.push_str(&part),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(character)) => inside.push(character),
                _ => inside.push_str(resolve_predefined_entity(&name)?),
            },
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>
        <EnumerationResults ServiceEndpoint=\"https://x/\" ContainerName=\"locks\"><Prefix>a</Prefix><Blobs>
        <Blob><Name>a&amp;b/&#x41;</Name><Properties><Etag>0x1</Etag><LeaseStatus>locked</LeaseStatus>
        <LeaseState>leased</LeaseState><LeaseDuration>infinite</LeaseDuration></Properties>
        <Metadata><leaseholdtoken>7</leaseholdtoken><Other /></Metadata></Blob>
        <Blob><Name>b</Name><Properties><LeaseState>expired</LeaseState></Properties><Metadata/></Blob>
        <BlobPrefix><Name>c/</Name></BlobPrefix></Blobs><NextMarker>m1</NextMarker></EnumerationResults>";

    #[test]
    fn a_page_of_the_documentation() {
        let page = page(PAGE.as_bytes()).unwrap();
        let [a, b] = &page.blobs[..] else { panic!("{page:?}") };
        assert_eq!((&*a.name, a.leased, a.infinite), ("a&b/A", true, true));
        assert_eq!(a.metadata.token().unwrap(), Some(7));
        assert_eq!((&*b.name, b.leased, b.infinite), ("b", false, false));
        assert_eq!(page.next.as_deref(), Some("m1"));
    }

    #[test]
    fn a_page_that_is_cut_off_is_none() {
        for end in 0..PAGE.len() {
            if let Some(cut) = PAGE.get(..end) {
                assert_eq!(page(cut.as_bytes()), None, "{cut}");
            }
        }
        assert_eq!(page(b"<html><body>log in</body></html>"), None);
    }

    #[test]
    fn a_page_with_bottomless_elements_is_none() {
        let nested = |depth| {
            let (start, end) = ("<a>".repeat(depth), "</a>".repeat(depth));
            page(format!("<EnumerationResults>{start}{end}</EnumerationResults>").as_bytes())
        };
        assert_eq!(nested(DEEPEST - 1), Some(Page::default()));
        assert_eq!((nested(DEEPEST), nested(1_000_000)), (None, None));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body: Vec<u8>, text in "[<>/a-zA-Z&;# ]{0,200}") {
            let _ = page(&body);
            let _ = page(text.as_bytes());
        }
    }
}
