"""Messages as monitors and gateways send them; the values are ours."""

from __future__ import annotations

from collections.abc import Sequence

WCM_HEADER = (
    "MSH|^~\\&|ACME_GW^0A0B0C0D0E0F0001^EUI-64|WARD 3|||20261129101501.250+0100||ORU^R01^ORU_R01|{control}"
    "|P|2.6|||{answers}|||||IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
)


def text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r" for line in lines).encode()


def wcm(
    control: str = "1",
    *,
    bed: str = "ICU^2^23",
    start: str = "20261129101500.000+0100",
    samples: str = "0.1^0.2^-0.3^",
    unit: str = "266418^MDC_DIM_MILLI_VOLT^MDC",
    fs: str = "500",
    answers: str = "|",
) -> bytes:
    """IHE PCD WCM: two leads and a pleth in physical units, with their facets."""
    rate = "NM|0^MDC_ATTR_SAMP_RATE^MDC|1.1.1.{}.1|{}|264608^MDC_DIM_PER_SEC^MDC|||||R"
    return text(
        [
            WCM_HEADER.format(control=control, answers=answers),
            "PID|||PAT-77^^^HOSP^MR||ROE^JANE^^^^^L",
            f"PV1||I|{bed}",
            f"OBR|1||{control}^ACME|69121^MDC_OBS_WAVE_CTS^MDC|||{start}|20261129101501.000+0100",
            "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X|||||||M-0042^^0042^EUI-64",
            f"OBX|2|NA|131330^MDC_ECG_ELEC_POTL_II^MDC|1.1.1.2|{samples}|{unit}|||||R",
            f"OBX|3|{rate.format(2, fs)}",
            "OBX|4|NM|2327^MDC_ATTR_NU_MSMT_RES^MDC|1.1.1.2.2|0.0025|266418^MDC_DIM_MILLI_VOLT^MDC|||||R",
            f"OBX|5|NA|131329^MDC_ECG_ELEC_POTL_I^MDC|1.1.1.1|1^2^3^4|{unit}||QUES|||R",
            f"OBX|6|{rate.format(1, fs)}",
            "OBX|7|NA|150452^MDC_PULS_OXIM_PLETH^MDC|1.1.1.9|5^6|262688^MDC_DIM_PERCENT^MDC|||||R",
            f"OBX|8|{rate.format(9, 125)}",
            "OBX|9|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.10|71|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R",
        ]
    )


def mindray(bed: str = "CCU^^7&10.0.0.7&0") -> bytes:
    """Counts with a resolution, a value that means "no sample", milliseconds without a point, LF."""
    facets = (
        "OBX|2|NM|0^MDC_ATTR_SAMP_RATE^MDC|1.7.6.{code}.1|250|264640^MDC_DIM_HZ^MDC\n"
        "OBX|3|NM|2327^MDC_ATTR_NU_MSMT_RES^MDC|1.7.6.{code}.2|0.002|266418^MDC_DIM_MILLI_VOLT^MDC\n"
        "OBX|4|NM|262196^MDC_EVT_INOP^MDC|1.7.6.{code}.3|32767"
    )
    return "\n".join(
        [
            "MSH|^~\\&||BEDSIDE_N^00A0370001^EUI-64|||20261129101501000+0100||ORU^R01^ORU_R01|374|P|2.6",
            "PID|||^^^Hospital^PI||^^^^^^L",
            f"PV1||I|{bed}",
            "OBR|1||374^BEDSIDE_N|CONTINUOUS WAVEFORM|||20261129101500250+0100|20261129101501250+0100",
            "OBX|1|NA|131329^MDC_ECG_ELEC_POTL_I^MDC|1.7.6.131329|100^-100^32767|262656^MDC_DIM_DIMLESS^MDC",
            facets.format(code=131329),
            "OBX|5|NA|131331^MDC_ECG_ELEC_POTL_V1^MDC|1.7.6.131331|32767^32767^32767",
            facets.format(code=131331),
        ]
    ).encode()


def plain(bed: str = "BED-1", start: str = "20261129101500", control: str = "7") -> bytes:
    """The form of VitalRecorder: the rate in the name, whole seconds, local time."""
    return text(
        [
            f"MSH|^~\\&|VitalRecorder|OR5|||20261129101501||ORU^R01|{control}|P|2.6",
            "PID|||",
            f"PV1||I|{bed}",
            f"OBR|1|||VITAL_SIGNS|||{start}|20261129101501",
            "OBX|1|NM|ECG_HR^Monitor/HR||72|bpm|40^200||||R",
            "OBX|2|NA|ECG_WAV^Monitor/ECG_II@100||0.12^^0.15|mV|-1.5^1.5||||R",
            "OBX|3|NA|^Monitor/ECG_V5@100||1^2^3|uV|||||R",
            "OBX|4|NA|PLETH_WAV^Monitor/PLETH@100||30^31^32||||||R",
        ]
    )


EXAMPLES = (wcm(), mindray(), plain(), wcm(answers="NE|NE", unit="mV"), plain() + plain("BED-2"))
