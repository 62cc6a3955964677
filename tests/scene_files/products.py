"""EnMAP and DESIS products: faithful ones, and XML that lies."""

import numpy as np
import rasterio
from affine import Affine

NM, FWHM = [418.24, 993.1, 902.5, 2445.53], [6.99, 11.4, 10.1, 7.2]
GAIN, OFFSET = [0.0001, 0.0002, 0.0005, 0.001], [0.0, 0.25, -0.5, 1.0]
CUBE = (np.arange(4 * 6 * 5).reshape(4, 6, 5) * 7 % 113 + 1).astype(np.int16)
PHYSICAL = CUBE * np.array(GAIN)[:, None, None] + np.array(OFFSET)[:, None, None]
PLACE = {"transform": Affine(30, 0, 366015, 0, -30, 5809965), "crs": "EPSG:32633"}
ENMAP = "ENMAP01-____{}-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z-"
L2A = ENMAP.format("L2A")
DESIS = "DESIS-HSI-{}-DT0483531728_001-20200821T212757-V0210-"


def enmap_band(i, nm=NM, fwhm=FWHM, gain=GAIN, offset=OFFSET):
    return (
        f'<bandID number="{i + 1}"><wavelengthCenterOfBand>{nm[i]}</wavelengthCenterOfBand>'
        f"<FWHMOfBand> {fwhm[i]}\n</FWHMOfBand><GainOfBand>{gain[i]}</GainOfBand>"
        f"<OffsetOfBand>{offset[i]}</OffsetOfBand></bandID>"
    )


def enmap_xml(
    level="L2A", *, order=range(4), background="-32768", detectors=(2, 2), expected=("1,2", "3,4"), spaces=""
):
    bands = "".join(enmap_band(i) for i in order)
    images = "".join(f"<{n}><channels>{c}</channels></{n}>" for n, c in zip(("vnir", "swir"), detectors, strict=True))
    quality = "".join(
        f"<{n}ProductQuality><expectedChannelsList>{c}</expectedChannelsList></{n}ProductQuality>"
        for n, c in zip(("vnir", "swir"), expected, strict=True)
        if c is not None
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<level_X{spaces}><metadata><name>x</name></metadata>'
        f"<base><level>{level}</level><temporalCoverage><startTime>2022-07-24T10:45:26.0Z</startTime></temporalCoverage>"
        f"</base><specific><backgroundValue>{background}</backgroundValue>{quality}"
        f"<smileCorrection><VNIR><bandID number='1'><c0>9</c0></bandID></VNIR></smileCorrection>"
        f"<bandCharacterisation>{bands}</bandCharacterisation></specific>"
        f"<product><image>{images}</image><navigation><RPC><bandID number='1'><ROW_OFF>3</ROW_OFF></bandID></RPC>"
        f"</navigation></product></level_X>"
    )


def desis_xml(level="L1C", *, order=range(4)):
    bands = "".join(
        f"<band><bandNumber>{i + 1}</bandNumber><wavelengthCenterOfBand>{NM[i]}</wavelengthCenterOfBand>"
        f"<wavelengthWidthOfBand>{FWHM[i]}</wavelengthWidthOfBand><response>{'0.5,' * 60_000}</response>"
        f"<gainOfBand>{GAIN[i]}</gainOfBand><offsetOfBand>{OFFSET[i]}</offsetOfBand></band>"
        for i in order
    )
    return (
        f"<?xml version='1.0'?><hsi_doc><base><level>{level}</level><temporalCoverage>"
        f"<startTime>2020-08-21T21:27:57Z</startTime></temporalCoverage></base><specific><interiorOrientation><band>"
        f"<bandNumber>1</bandNumber></band></interiorOrientation><bandCharacterisation>{bands}</bandCharacterisation>"
        f"</specific></hsi_doc>"
    )


def write(folder, xml, *, cube=CUBE, stem=L2A, image="SPECTRAL_IMAGE.TIF", meta="METADATA.XML", **options):
    """Writes a product; returns the paths of its XML and of its image."""
    shape = {"count": cube.shape[0], "height": cube.shape[1], "width": cube.shape[2], "dtype": cube.dtype}
    path = folder / f"{stem}{image}"
    with rasterio.open(path, "w", **({"driver": "GTiff"} | PLACE | shape | options)) as file:
        file.write(cube)
    if xml is not None:
        (folder / f"{stem}{meta}").write_text(xml)
    return folder / f"{stem}{meta}", path


GOOD = enmap_xml()
XMLS = {
    "other root": GOOD.replace("level_X", "Product"),
    "truncated": GOOD[:-200],
    "no bands": enmap_xml(order=()),
    "3 bands for 4": enmap_xml(order=(0, 1, 2)),
    "band 2 missing": enmap_xml(order=(0, 2, 3)),
    "band without number": GOOD.replace('<bandID number="1"><wave', "<bandID><wave"),
    "decimal comma": GOOD.replace("418.24", "418,24"),
    "wavelength empty": GOOD.replace("418.24", ""),
    "wavelength in micrometres": GOOD.replace("418.24", "0.41824"),
    "width missing": GOOD.replace("<FWHMOfBand> 6.99\n</FWHMOfBand>", ""),
    "gain 0": GOOD.replace(">0.0002<", ">0<"),
    "offset missing": GOOD.replace("<OffsetOfBand>0.25</OffsetOfBand>", ""),
    "background none": GOOD.replace(">-32768<", ">NA<"),
}
