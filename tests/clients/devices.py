"""Two programs that people sign in with, and what their `User-Agent` says."""

from harness import Like

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/96.0.4664.110 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 15_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.1 "
    "Mobile/15E148 Safari/604.1"
)
# In JSON both contracts name the fields alike.
ON_CHROME = {
    "osCode": "WIN", "osName": "Windows", "osVersion": "10", "clientType": "browser", "clientCode": "CH",
    "clientName": "Chrome", "clientVersion": Like(r"96\.0.*"), "clientEngine": "Blink",
    "clientEngineVersion": Like(r"96\.0.*"), "deviceName": "desktop", "deviceBrand": "", "deviceModel": "",
    "countryCode": "--", "countryName": "Unknown",
}
ON_IPHONE = {
    **ON_CHROME, "osCode": "IOS", "osName": "iOS", "osVersion": "15.1", "clientCode": "MF", "clientName": "Mobile Safari",
    "clientVersion": Like(r"15\.1.*"), "clientEngine": "WebKit", "clientEngineVersion": "605.1.15",
    "deviceName": "smartphone", "deviceBrand": "Apple",
    "deviceModel": "iPhone",
}
UNKNOWN = {**dict.fromkeys(ON_CHROME, ""), "countryCode": "--", "countryName": "Unknown"}
