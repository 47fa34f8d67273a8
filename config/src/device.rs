//! Where a parent is computed: `auto`, `cpu`, `cuda:N`, `metal`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What is asked for; whether a build has it and the machine too is seen when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The best there is.
    #[default]
    Auto,
    Cpu,
    /// With its number.
    Cuda(u32),
    Metal,
}

/// A word that is no [`Device`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"auto\", \"cpu\", \"cuda:N\" with the number of the device, or \"metal\"")]
pub struct BadDevice;

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for Device {
    type Err = BadDevice;

    fn from_str(text: &str) -> Result<Device, BadDevice> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "metal" => Ok(Device::Metal),
            "cuda" => Ok(Device::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or(BadDevice)?;
                number.parse().map(Device::Cuda).map_err(|_| BadDevice)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        #[track_caller]
        fn check(text: &str, want: Result<Device, BadDevice>) {
            assert_eq!(text.parse(), want, "{text}");
            if let Ok(device) = want {
                assert_eq!(device.to_string().parse(), want);
            }
        }
        check("auto", Ok(Device::Auto));
        check("cpu", Ok(Device::Cpu));
        check("cuda", Ok(Device::Cuda(0)));
        check("cuda:3", Ok(Device::Cuda(3)));
        check("metal", Ok(Device::Metal));
        check("cuda:", Err(BadDevice));
        check("cuda:-1", Err(BadDevice));
        check("CPU", Err(BadDevice));
        check("", Err(BadDevice));
    }
}
