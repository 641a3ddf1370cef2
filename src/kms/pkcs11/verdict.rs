//! What the HSM's return codes mean (PKCS #11 v3.0, section 5.1), and whether the session that got one is still good. Pure.

use crate::kms::{Failure, KmsError};
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

/// Whether another session may do better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The answer is final, and the session good.
    Keep,
    /// The session is lost, or what it saw has gone: a fresh one is worth a try.
    Afresh,
}

/// A call that did not go well.
#[derive(Debug)]
pub struct Trouble {
    pub error: KmsError,
    pub after: After,
    /// The HSM blames nobody: it may be the blob.
    pub vague: bool,
}

impl Trouble {
    /// One of our own making.
    pub fn new(failure: Failure, what: &str) -> Trouble {
        Trouble {
            error: KmsError::new(failure, what),
            after: After::Keep,
            vague: false,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        let (failure, after, what) = match &error {
            Error::Pkcs11(code, function) => {
                let (failure, after) = sort(*code);
                // The names of the standard; a maker's own codes are numbers.
                (failure, after, format!("C_{function:?} says {code:?}"))
            }
            // Its answer does not have the form that it should have.
            _ => (
                Failure::Unreachable,
                After::Afresh,
                "the HSM's library answers oddly".to_owned(),
            ),
        };
        let vague = matches!(
            error,
            Error::Pkcs11(
                RvError::GeneralError | RvError::FunctionFailed,
                Function::Decrypt
            )
        );
        Trouble {
            error: KmsError::new(failure, what),
            after,
            vague,
        }
    }
}

fn sort(code: RvError) -> (Failure, After) {
    use After::{Afresh, Keep};
    use Failure::{Denied, Disabled, Malformed, Unreachable};
    match code {
        RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinExpired
        | RvError::PinLocked
        | RvError::UserPinNotInitialized
        | RvError::UserTypeInvalid
        | RvError::UserTooManyTypes
        | RvError::ActionProhibited
        | RvError::FunctionRejected => (Denied, Keep),
        RvError::KeyFunctionNotPermitted => (Disabled, Keep),
        RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::ArgumentsBad
        | RvError::SignatureInvalid
        | RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::KeySizeRange
        | RvError::KeyTypeInconsistent
        | RvError::FunctionNotSupported => (Malformed, Keep),
        // It was there a moment ago: whoever looks again will not find it.
        RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => (Unreachable, Afresh),
        // Somebody else has the places.
        RvError::SessionCount => (Unreachable, Keep),
        // Sessions, tokens and devices that went, and whatever is not known.
        _ => (Unreachable, Afresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_classes() {
        use After::{Afresh, Keep};
        use Failure::{Denied, Disabled, Malformed, Unreachable};
        for (code, failure, after) in [
            (RvError::PinIncorrect, Denied, Keep),
            (RvError::PinLocked, Denied, Keep),
            (RvError::UserPinNotInitialized, Denied, Keep),
            (RvError::KeyFunctionNotPermitted, Disabled, Keep),
            (RvError::EncryptedDataInvalid, Malformed, Keep),
            (RvError::MechanismInvalid, Malformed, Keep),
            (RvError::SessionCount, Unreachable, Keep),
            (RvError::SessionHandleInvalid, Unreachable, Afresh),
            (RvError::SessionClosed, Unreachable, Afresh),
            (RvError::UserNotLoggedIn, Unreachable, Afresh),
            (RvError::KeyHandleInvalid, Unreachable, Afresh),
            (RvError::TokenNotPresent, Unreachable, Afresh),
            (RvError::DeviceRemoved, Unreachable, Afresh),
            (RvError::DeviceError, Unreachable, Afresh),
            (RvError::CryptokiNotInitialized, Unreachable, Afresh),
            (RvError::GeneralError, Unreachable, Afresh),
            (RvError::VendorDefined(0x8000_0001), Unreachable, Afresh),
        ] {
            let trouble = Trouble::from(Error::Pkcs11(code, Function::DecryptInit));
            assert_eq!((trouble.error.failure, trouble.after), (failure, after));
            assert!(!trouble.vague, "{code:?}");
            let name = format!("{code:?}");
            assert!(trouble.error.detail.contains(&name), "{}", trouble.error);
        }
        let vague = Trouble::from(Error::Pkcs11(RvError::GeneralError, Function::Decrypt));
        assert!(vague.vague);
    }
}
