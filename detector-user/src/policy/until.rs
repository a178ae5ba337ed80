//! When a rule ends: a date and time with its offset, as seconds since the Unix epoch.

use toml::de::DeValue;
use toml::value::{Datetime, Offset};

use super::fields::Field;
use super::text::{At, Issue, Report};

/// An end, for messages.
const EXPECTED: &str = "a date and time with an offset, such as 2026-12-01T06:00:00Z";

const S_PER_DAY: i64 = 86_400;

/// Reads an end. A part of a second counts as a whole one, and a time before 1970 as 1970.
pub(super) fn parse(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<At<u64>> {
    let DeValue::Datetime(time) = field.value.get_ref() else {
        let text = field.value.get_ref().as_str();
        let is_quoted = text.and_then(|text| text.parse().ok()).is_some_and(|time| unix_s(&time).is_some());
        let help = text.filter(|_| is_quoted).map(|text| format!("write {text} without quotes"));
        report.error(field.span(), field.wrong_type_issue(EXPECTED).help(help));
        return None;
    };
    let Some(value) = unix_s(time) else {
        report.error(field.span(), incomplete(time));
        return None;
    };
    Some(At { value, span: field.span() })
}

fn incomplete(time: &Datetime) -> Issue {
    let (lacks, whole) = match (time.date, time.time) {
        (Some(_), Some(_)) => ("an offset", Some(format!("{time}"))),
        (Some(_), None) => ("a time and an offset", Some(format!("{time}T00:00:00"))),
        (None, _) => ("a date and an offset", None),
    };
    let issue = Issue::new(format!("`until` without {lacks}"), EXPECTED);
    issue.help(
        whole.map(|whole| {
            format!("write {whole}Z for UTC, or {whole}+02:00 where clocks are two hours ahead")
        }),
    )
}

/// Seconds since the Unix epoch; nothing without date, time and offset.
fn unix_s(time: &Datetime) -> Option<u64> {
    let (date, of_day) = (time.date?, time.time?);
    let offset_min = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(date.year.into(), date.month.into(), date.day.into());
    let minutes = i64::from(of_day.hour) * 60 + i64::from(of_day.minute) - offset_min;
    let begun = i64::from(of_day.nanosecond.is_some_and(|nanosecond| nanosecond > 0));
    let seconds = days * S_PER_DAY + minutes * 60 + i64::from(of_day.second.unwrap_or(0)) + begun;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, from year 0 on.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years from March to February, so that a leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    const DAYS_TO_1970: i64 = 719_468;
    365 * year + leap_days + day_of_year - DAYS_TO_1970
}

/// An end as it is written, in UTC.
pub fn text(unix_s: u64) -> String {
    let (days, second) = ((unix_s / S_PER_DAY as u64) as i64, unix_s % S_PER_DAY as u64);
    // The first guess is a year that has begun, or the one after it.
    let mut year = 1970 + days / 365;
    while days_since_1970(year, 1, 1) > days {
        year -= 1;
    }
    let month = (1..=12).rev().find(|&month| days_since_1970(year, month, 1) <= days).unwrap_or(1);
    let day = days - days_since_1970(year, month, 1) + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", 0),
            ("0000-02-29T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2026-12-01T06:00:00Z", 1_796_104_800),
            ("2026-12-01T06:00:00+01:30", 1_796_099_400),
            ("2026-11-30T23:00:00-07:00", 1_796_104_800),
            ("2026-12-01T06:00:00.000Z", 1_796_104_800),
            ("2026-12-01T06:00:00.000000001Z", 1_796_104_801),
            ("2026-12-31T23:59:60Z", 1_798_761_600),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(unix_s(&text.parse().unwrap()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn an_end_is_written_as_it_is_read() {
        for day in 0..100_000 {
            let seconds = day * 86_400 + day % 86_400;
            assert_eq!(unix_s(&text(seconds).parse().unwrap()), Some(seconds), "{}", text(seconds));
        }
        assert_eq!(text(253_402_300_799), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn every_day_is_one_after_the_day_before() {
        let mut expected = days_since_1970(1600, 1, 1);
        for year in 1600..2401 {
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(lengths) {
                for day in 1..=length {
                    assert_eq!(days_since_1970(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }
}
