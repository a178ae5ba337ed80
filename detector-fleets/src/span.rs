//! Neighbouring categories of a family: what one program does falls into few of them.

use crate::family::{Family, LIVES, SIZES, VOLUMES};

/// Rows and columns of a span, at most.
const SIDE_MAX: u8 = 3;

/// Rows of a band, at most.
const BAND_MAX: u8 = 4;

/// A rectangle in the table of a family's evidence: volumes and lives, sizes of requests and of responses; of ways, a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first row and column.
    pub first: [u8; 2],
    /// How many of each.
    pub sides: [u8; 2],
}

/// Rows and columns of a family's evidence, without what is not known, and how far apart rows are.
const fn table(family: Family) -> ([u8; 2], usize) {
    match family {
        Family::Homogeneity => ([VOLUMES as u8, LIVES as u8], LIVES),
        Family::Path => ([1, 2], 2),
        Family::Size => ([SIZES as u8 - 1, SIZES as u8 - 1], SIZES),
    }
}

impl Span {
    /// A proxy on the way, in [`Family::Path`].
    pub const PROXIED: Self = Self { first: [0, 1], sides: [1, 1] };

    /// Kinds of span that a family has.
    pub const fn shapes(family: Family) -> usize {
        match family {
            Family::Path => 1,
            Family::Homogeneity | Family::Size => SIDE_MAX as usize * SIDE_MAX as usize,
        }
    }

    /// Bands of volumes, whatever the lives are: those of one actor do as much as each other, but how long they were seen for depends on
    /// when they came. Not of the open class, in which sources are not alike: addresses of many users are there.
    pub fn bands() -> Vec<Self> {
        let ([rows, columns], _) = table(Family::Homogeneity);
        let of = |many| (0..rows - many).map(move |row| Self { first: [row, 0], sides: [many, columns] });
        (1..=BAND_MAX).flat_map(of).collect()
    }

    /// Whether it is one of [`Self::bands`].
    pub const fn is_band(self) -> bool {
        self.sides[1] > SIDE_MAX
    }

    /// All spans of a family but bands.
    pub fn all(family: Family) -> Vec<Self> {
        if family == Family::Path {
            return vec![Self::PROXIED];
        }
        let ([rows, columns], _) = table(family);
        let mut all = Vec::new();
        for side in 0..SIDE_MAX * SIDE_MAX {
            let sides = [1 + side / SIDE_MAX, 1 + side % SIDE_MAX];
            for row in 0..=rows - sides[0] {
                all.extend((0..=columns - sides[1]).map(|column| Self { first: [row, column], sides }));
            }
        }
        all
    }

    /// How many categories it has.
    pub const fn len(self) -> usize {
        self.sides[0] as usize * self.sides[1] as usize
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Its categories, as [`Family::evidence`] numbers them.
    pub fn categories(self, family: Family) -> impl Iterator<Item = usize> {
        let (_, apart) = table(family);
        let [row, column] = self.first.map(usize::from);
        let [rows, columns] = self.sides.map(usize::from);
        (row..row + rows)
            .flat_map(move |row| (column..column + columns).map(move |column| row * apart + column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rectangles_of_what_is_known() {
        for family in Family::ALL {
            let all = Span::all(family);
            for span in &all {
                assert_eq!(span.categories(family).count(), span.len());
                assert!(span.categories(family).all(|category| category < family.evidences()), "{span:?}");
            }
        }
        let of_sizes = |span: Span| span.categories(Family::Size).collect::<Vec<_>>();
        assert_eq!(of_sizes(Span { first: [2, 3], sides: [2, 2] }), [37, 38, 54, 55]);
        assert!(
            Span::all(Family::Size).iter().all(|span| of_sizes(*span).iter().all(|size| size % SIZES < 16))
        );
        assert_eq!(
            Span::all(Family::Homogeneity).iter().filter(|span| span.len() == 1).count(),
            VOLUMES * LIVES
        );
        assert!(Span::PROXIED.categories(Family::Path).eq([1]));
    }
}
