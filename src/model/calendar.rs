//! The Gregorian calendar, also for the time before it was made.
//!
//! Years are counted from March, so that the day that leap years add comes last; 719,468
//! is the number of days from 0000-03-01 to 1970-01-01, and 400 years always have 146,097 days.

/// Year, month and day of a day counted from 1970-01-01.
pub fn civil_date(days_since_epoch: i64) -> (i64, i64, i64) {
    let days = days_since_epoch + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// The reverse, for years from 0; `None` for a date that does not exist, such as February 30.
pub fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    // 400 years more, so that nothing is negative.
    let year_from_march = year + 400 - i64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let leap_days = year_from_march / 4 - year_from_march / 100 + year_from_march / 400;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = 365 * year_from_march + leap_days + day_of_year - 719_468 - 146_097;
    (civil_date(days) == (year, month, day)).then_some(days)
}
