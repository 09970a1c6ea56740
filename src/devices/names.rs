//! The codes of systems and browsers, which are Matomo's (device-detector, `OperatingSystem` and `Browser`),
//! by the names that `ua-parser` gives them.

/// A system: as the parser names it, its code, its name, and the kind of device it runs on, where one is
/// usual.
pub(super) type System = (&'static str, &'static str, &'static str, &'static str);

const SYSTEMS: &[System] = &[
    ("Windows", "WIN", "Windows", "desktop"),
    ("Mac OS X", "MAC", "Mac OS X", "desktop"),
    ("macOS", "MAC", "macOS", "desktop"),
    ("Mac OS", "MAC", "Mac OS", "desktop"),
    ("Linux", "LIN", "Linux", "desktop"),
    ("Ubuntu", "UBT", "Ubuntu", "desktop"),
    ("Kubuntu", "KBT", "Kubuntu", "desktop"),
    ("Lubuntu", "LBT", "Lubuntu", "desktop"),
    ("Debian", "DEB", "Debian", "desktop"),
    ("Fedora", "FED", "Fedora", "desktop"),
    ("Red Hat", "RHT", "Red Hat", "desktop"),
    ("CentOS", "CES", "CentOS", "desktop"),
    ("SUSE", "SSE", "SUSE", "desktop"),
    ("openSUSE", "SSE", "openSUSE", "desktop"),
    ("Arch Linux", "ARL", "Arch Linux", "desktop"),
    ("Gentoo", "GNT", "Gentoo", "desktop"),
    ("Slackware", "SLW", "Slackware", "desktop"),
    ("Linux Mint", "MIN", "Linux Mint", "desktop"),
    ("Mandriva", "MDR", "Mandriva", "desktop"),
    ("Mageia", "MAG", "Mageia", "desktop"),
    ("PCLinuxOS", "PCL", "PCLinuxOS", "desktop"),
    ("BackTrack", "BTR", "BackTrack", "desktop"),
    ("SerenityOS", "SER", "SerenityOS", "desktop"),
    ("Chrome OS", "COS", "Chrome OS", "desktop"),
    ("FreeBSD", "BSD", "FreeBSD", "desktop"),
    ("NetBSD", "NBS", "NetBSD", "desktop"),
    ("OpenBSD", "OBS", "OpenBSD", "desktop"),
    ("Solaris", "SOS", "Solaris", "desktop"),
    ("Android", "AND", "Android", "smartphone"),
    ("iOS", "IOS", "iOS", "smartphone"),
    IPAD_OS,
    ("tvOS", "ATV", "tvOS", "tv"),
    ("ATV OS X", "ATV", "tvOS", "tv"),
    ("WatchOS", "WAS", "watchOS", "wearable"),
    ("Windows Phone", "WPH", "Windows Phone", "smartphone"),
    ("Windows Mobile", "WMO", "Windows Mobile", "smartphone"),
    ("BlackBerry OS", "BLB", "BlackBerry OS", "smartphone"),
    ("BlackBerry Tablet OS", "QNX", "BlackBerry Tablet OS", "tablet"),
    ("Symbian OS", "SYS", "Symbian OS", "smartphone"),
    ("Symbian^3", "SY3", "Symbian^3", "smartphone"),
    ("Symbian^3 Anna", "SY3", "Symbian^3 Anna", "smartphone"),
    ("Symbian^3 Belle", "SY3", "Symbian^3 Belle", "smartphone"),
    ("Nokia Series 40", "S40", "Nokia Series 40", "smartphone"),
    ("Firefox OS", "FOS", "Firefox OS", "smartphone"),
    ("KaiOS", "KOS", "KaiOS", "smartphone"),
    ("Sailfish", "SAF", "Sailfish", "smartphone"),
    ("Bada", "SBA", "Bada", "smartphone"),
    ("Tizen", "TIZ", "Tizen", ""),
    ("webOS", "WOS", "webOS", "smartphone"),
    ("Web0S", "WOS", "webOS", "tv"),
    ("Roku", "ROK", "Roku", "tv"),
    ("Chromecast Android", "", "Chromecast Android", "tv"),
    ("Chromecast Fuchsia", "", "Chromecast Fuchsia", "tv"),
    ("Chromecast Linux", "", "Chromecast Linux", "tv"),
];

/// The system of iPads since version 13. They say iOS.
pub(super) const IPAD_OS: System = ("iPadOS", "IPA", "iPadOS", "tablet");

/// A browser: as the parser names it, its code, if it has one, and its name.
type Browser = (&'static str, &'static str, &'static str);

const BROWSERS: &[Browser] = &[
    ("Amazon Silk", "MS", "Amazon Silk"),
    ("Android", "AN", "Android Browser"),
    ("Avast Secure Browser", "AS", "Avast Secure Browser"),
    ("BlackBerry", "BB", "BlackBerry Browser"),
    ("BlackBerry WebKit", "BB", "BlackBerry Browser"),
    ("Brave", "BR", "Brave"),
    ("Chrome", "CH", "Chrome"),
    ("Chrome Mobile", "CM", "Chrome Mobile"),
    ("Chrome Mobile WebView", "CV", "Chrome Webview"),
    ("Chrome Mobile iOS", "CI", "Chrome Mobile iOS"),
    ("Chromium", "CR", "Chromium"),
    ("Coc Coc", "CC", "Coc Coc"),
    ("DuckDuckGo", "DD", "DuckDuckGo Privacy Browser"),
    ("DuckDuckGo Mobile", "DD", "DuckDuckGo Privacy Browser"),
    ("Ecosia Android", "EC", "Ecosia"),
    ("Ecosia iOS", "EC", "Ecosia"),
    ("Edge", "PS", "Microsoft Edge"),
    ("Edge Mobile", "PS", "Microsoft Edge"),
    ("Epiphany", "EP", "GNOME Web"),
    ("Falkon", "FA", "Falkon"),
    ("Firefox", "FF", "Firefox"),
    ("Firefox Alpha", "FF", "Firefox"),
    ("Firefox Beta", "FF", "Firefox"),
    ("Firefox Focus", "FK", "Firefox Focus"),
    ("Firefox Mobile", "FM", "Firefox Mobile"),
    ("Firefox iOS", "F1", "Firefox Mobile iOS"),
    ("HeadlessChrome", "HC", "Headless Chrome"),
    ("Huawei Browser", "HU", "Huawei Browser"),
    ("IE", "IE", "Internet Explorer"),
    ("IE Mobile", "IM", "IE Mobile"),
    ("Konqueror", "KO", "Konqueror"),
    ("Links", "LI", "Links"),
    ("Lynx", "LX", "Lynx"),
    ("Maxthon", "MX", "Maxthon"),
    ("MiuiBrowser", "MU", "MIUI Browser"),
    ("Mobile Safari", "MF", "Mobile Safari"),
    ("Mobile Safari UI/WKWebView", "MF", "Mobile Safari"),
    ("NetFront", "NF", "NetFront"),
    ("Netscape", "NS", "Netscape"),
    ("Nokia Browser", "NB", "Nokia Browser"),
    ("Oculus Browser", "OC", "Oculus Browser"),
    ("Opera", "OP", "Opera"),
    ("Opera Mini", "OI", "Opera Mini"),
    ("Opera Mobile", "OM", "Opera Mobile"),
    ("Pale Moon", "PM", "Pale Moon"),
    ("Puffin", "PU", "Puffin"),
    ("QQ Browser", "QQ", "QQ Browser"),
    ("QQ Browser Mobile", "QQ", "QQ Browser"),
    ("Safari", "SF", "Safari"),
    ("Sailfish Browser", "SA", "Sailfish Browser"),
    ("Samsung Internet", "SB", "Samsung Internet"),
    ("Sogou Explorer", "SE", "Sogou Explorer"),
    ("Tizen Browser", "TZ", "Tizen Browser"),
    ("UC Browser", "UC", "UC Browser"),
    ("Vivaldi", "VI", "Vivaldi"),
    ("Waterfox", "WF", "Waterfox"),
    ("Whale", "WH", "Whale Browser"),
    ("Yandex Browser", "YA", "Yandex Browser"),
    ("w3m", "", "w3m"),
];

/// Libraries that the parser takes for bots, or that begin like browsers.
const LIBRARIES: &[&str] = &[
    "Apache-HttpClient",
    "Google-HTTP-Java-Client",
    "JNLP",
    "Java",
    "PowerShell",
    "Python-urllib",
    "WinHTTP",
    "WindowsPowerShell",
];

pub(super) fn system(seen: &str) -> Option<&'static System> {
    SYSTEMS.iter().find(|(name, ..)| *name == seen)
}

/// Code and name.
pub(super) fn browser(seen: &str) -> Option<(&'static str, &'static str)> {
    BROWSERS.iter().find(|(name, ..)| *name == seen).map(|(_, code, name)| (*code, *name))
}

pub(super) fn is_library(seen: &str) -> bool {
    LIBRARIES.contains(&seen)
}
