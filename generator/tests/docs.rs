//! docs/scenarios.md says what the code does.

use std::fs;

use detector_generator::scenario::{
    ApiCustomers, AppLaunch, AppUsers, BrowserRelease, Browsers, Cgnat, CgnatRenumbering, Crawlers,
    CronBursts, DeviceLaunch, FlashCrowd, Fleet, Level, Monitors, Offices, OwnLimiter, Parameter,
    PrivacyRelay, RegionalFailover, Scenario, SdkRelease, Service, VpnRollout,
};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scenarios.md");

/// Compares the block between `<!-- generated: NAME -->` and `<!-- end -->` with what it should be, or writes it.
fn hold(name: &str, expected: &str) {
    let text = fs::read_to_string(PATH).expect("docs/scenarios.md");
    let head = format!("<!-- generated: {name} -->\n");
    let start = text.find(&head).unwrap_or_else(|| panic!("no block {name}")) + head.len();
    let end =
        start + text[start..].find("<!-- end -->").unwrap_or_else(|| panic!("block {name} does not end"));
    if std::env::var_os("DETECTOR_WRITE_DOCS").is_some() {
        fs::write(PATH, format!("{}{expected}{}", &text[..start], &text[end..])).expect("written");
        return;
    }
    assert_eq!(&text[start..end], expected, "block {name}: write it anew with DETECTOR_WRITE_DOCS=1");
}

fn section(name: &str, about: &str, parameters: &[Parameter]) -> String {
    // Rustdoc's links have no place in Markdown.
    let about = about.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let mut text = format!(
        "\n### {name}\n\n{about}\n\n| parameter | default | range | unit | meaning |\n|---|---|---|---|---|\n"
    );
    for Parameter { name, default, range, unit, help } in parameters {
        text += &format!("| `{name}` | {default} | {range} | {unit} | {help} |\n");
    }
    text
}

macro_rules! sections {
    ($($name:literal $parameters:ident),*) => {
        [$(section($name, $parameters::ABOUT, &$parameters::parameters())),*].concat() + "\n"
    };
}

/// One test for everything, since two would write to one file at a time.
#[test]
fn the_documentation_says_what_the_code_does() {
    hold("recording", &sections!["The recording" Scenario, "`[[service]]`" Service]);
    hold(
        "populations",
        &sections![
            "`[[api_customers]]`" ApiCustomers, "`[[app_users]]`" AppUsers, "`[[browsers]]`" Browsers, "`[[cgnat]]`" Cgnat,
            "`[[offices]]`" Offices, "`[[crawlers]]`" Crawlers, "`[[monitors]]`" Monitors
        ],
    );
    hold(
        "nuisances",
        &sections![
            "`[[flash_crowd]]`" FlashCrowd, "`[[browser_release]]`" BrowserRelease, "`[[sdk_release]]`" SdkRelease,
            "`[[regional_failover]]`" RegionalFailover, "`[[own_limiter]]`" OwnLimiter, "`[[cron_bursts]]`" CronBursts,
            "`[[app_launch]]`" AppLaunch, "`[[vpn_rollout]]`" VpnRollout, "`[[privacy_relay]]`" PrivacyRelay,
            "`[[device_launch]]`" DeviceLaunch, "`[[cgnat_renumbering]]`" CgnatRenumbering
        ],
    );
    let levels: String =
        Level::ALL.iter().map(|level| format!("| `{level:?}` | {} |\n", level.help())).collect();
    let levels = format!("\n| level | what it adds |\n|---|---|\n{levels}");
    hold("fleets", &format!("{levels}{}", sections!["`[[fleet]]`" Fleet]));
}
