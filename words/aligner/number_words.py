"""The small words that each language needs around numbers, symbols and abbreviations: a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NumberWords:
    """The small words one language needs around numbers and symbols."""

    point: tuple[str, ...]
    """Ways to say the decimal mark; empty string: leave it out."""

    percent: str
    currency: dict[str, tuple[str, ...]]
    """Symbol to its names; alternatives."""

    cents: tuple[str, ...]
    joint: str
    """Between units and cents."""

    symbols: dict[str, tuple[str, ...]]
    hour: tuple[str, ...]
    """Between hours and minutes."""

    zero: tuple[str, ...]
    abbreviations: dict[str, tuple[str, ...]]


def words_of(text: str) -> list[str]:
    """Words of a table; one string a table is easier on the eye than a string a word."""
    return text.split()


def _alternatives(text: str) -> dict[str, tuple[str, ...]]:
    """``key=one;other`` separated by ``|``."""
    pairs = (part.split("=", 1) for part in text.split("|") if "=" in part)
    return {key: tuple(value.split(";")) for key, value in pairs}


NUMBER_WORDS = {
    "en": NumberWords(
        point=("point",),
        percent="percent",
        currency=_alternatives("$=dollars;dollar|€=euros;euro|£=pounds;pound|¥=yen"),
        cents=("cents", "pence", "cent", ""),
        joint="and",
        symbols=_alternatives(
            "@=at|.=dot;point;|-=dash;hyphen;to;|_=underscore|/=slash;|#=number;hash;pound|&=and"
            "|+=plus|:=colon;|==equals|*=star;|°=degrees;degree|%=percent|$=dollars|€=euros|£=pounds|×=by;times"
        ),
        hour=("",),
        zero=("oh", "zero"),
        abbreviations=_alternatives(
            "dr=doctor;drive|mr=mister|mrs=missus|ms=miss|st=street;saint|ave=avenue|rd=road|"
            "blvd=boulevard|apt=apartment|no=number;no|vs=versus|etc=et cetera|dept=department|"
            "approx=approximately|ext=extension|jr=junior|sr=senior|mt=mount|ft=feet;foot|"
            "lb=pounds;pound|lbs=pounds|oz=ounces;ounce|kg=kilograms;kilos|km=kilometers|"
            "mi=miles|mph=miles per hour|min=minutes;minute|hr=hour;hours|hrs=hours|sec=seconds|"
            "jan=january|feb=february|mar=march;mar|apr=april|aug=august|sept=september|sep=september|"
            "oct=october|nov=november|dec=december|mon=monday|tue=tuesday|tues=tuesday|wed=wednesday;wed|"
            "thu=thursday|thurs=thursday|fri=friday|sat=saturday;sat|sun=sunday;sun|w/=with|"
            "inc=incorporated;inc|co=company|ok=o. k."
        ),
    ),
    "es": NumberWords(
        point=("coma", "con", "punto"),
        percent="por ciento",
        currency=_alternatives("€=euros;euro|$=dólares;dólar;pesos|£=libras|¥=yenes"),
        cents=("", "céntimos", "centavos"),
        joint="con",
        symbols=_alternatives(
            "@=arroba|.=punto;|-=guion;|_=guion bajo|/=barra;|#=almohadilla;número|&=y|+=más|:=dos puntos;"
            "|%=por ciento|°=grados|€=euros|$=dólares|==igual"
        ),
        hour=("", "y", "con"),
        zero=("cero",),
        abbreviations=_alternatives(
            "sr=señor|sra=señora|srta=señorita|dr=doctor|dra=doctora|ud=usted|uds=ustedes|av=avenida|"
            "avda=avenida|c/=calle|núm=número|nº=número|tel=teléfono|pza=plaza|etc=etcétera|kg=kilos|"
            "km=kilómetros|min=minutos"
        ),
    ),
    "de": NumberWords(
        point=("komma", ""),
        percent="prozent",
        currency=_alternatives("€=euro|$=dollar|£=pfund|¥=yen"),
        cents=("", "cent"),
        joint="und",
        symbols=_alternatives(
            "@=ät|.=punkt;|-=minus;bindestrich;bis;|_=unterstrich|/=schrägstrich;|#=raute|&=und|+=plus"
            "|:=doppelpunkt;|%=prozent|°=grad|€=euro|$=dollar|==gleich"
        ),
        hour=("uhr", ""),
        zero=("null",),
        abbreviations=_alternatives(
            "dr=doktor|str=straße|nr=nummer|hr=herr|fr=frau|ca=zirka|usw=und so weiter|bzw=beziehungsweise|"
            "z.b=zum beispiel|tel=telefon|st=sankt;stück|prof=professor|min=minuten|km=kilometer|kg=kilo|"
            "mo=montag|di=dienstag;di|mi=mittwoch|do=donnerstag|uhr=uhr"
        ),
    ),
    "fr": NumberWords(
        point=("virgule", ""),
        percent="pour cent",
        currency=_alternatives("€=euros|$=dollars|£=livres|¥=yens"),
        cents=("", "centimes", "cents"),
        joint="et",
        symbols=_alternatives(
            "@=arobase;chez|.=point;|-=tiret;|_=tiret bas;souligné|/=barre oblique;slash;|#=dièse|&=et|+=plus"
            "|:=deux points;|%=pour cent|°=degrés|€=euros|$=dollars|==égale"
        ),
        hour=("heures", "heure", ""),
        zero=("zéro",),
        abbreviations=_alternatives(
            "m=monsieur|mme=madame|mlle=mademoiselle|dr=docteur|av=avenue|bd=boulevard|n°=numéro|"
            "tél=téléphone|etc=et cetera|st=saint|ste=sainte|kg=kilos|km=kilomètres|min=minutes|h=heures"
        ),
    ),
    "it": NumberWords(
        point=("virgola", "e"),
        percent="per cento",
        currency=_alternatives("€=euro|$=dollari|£=sterline|¥=yen"),
        cents=("", "centesimi"),
        joint="e",
        symbols=_alternatives(
            "@=chiocciola|.=punto;|-=trattino;|_=trattino basso;underscore|/=barra;|#=cancelletto|&=e|+=più"
            "|:=due punti;|%=per cento|°=gradi|€=euro|$=dollari|==uguale"
        ),
        hour=("e", ""),
        zero=("zero",),
        abbreviations=_alternatives(
            "sig=signor|sig.ra=signora|dott=dottor|dott.ssa=dottoressa|dr=dottor|n=numero|tel=telefono|"
            "ecc=eccetera|p.zza=piazza|v.le=viale|kg=chili|km=chilometri|min=minuti"
        ),
    ),
    "pt": NumberWords(
        point=("vírgula", "e"),
        percent="por cento",
        currency=_alternatives("€=euros|$=dólares;reais|£=libras|¥=ienes"),
        cents=("", "cêntimos", "centavos"),
        joint="e",
        symbols=_alternatives(
            "@=arroba|.=ponto;|-=hífen;traço;|_=sublinhado|/=barra;|#=cardinal|&=e|+=mais|:=dois pontos;"
            "|%=por cento|°=graus|€=euros|$=dólares|==igual"
        ),
        hour=("e", "horas e", ""),
        zero=("zero",),
        abbreviations=_alternatives(
            "sr=senhor|sra=senhora|dr=doutor|dra=doutora|av=avenida|r=rua|nº=número|tel=telefone|"
            "etc=et cetera|kg=quilos|km=quilómetros|min=minutos|r$=reais"
        ),
    ),
    "nl": NumberWords(
        point=("komma", ""),
        percent="procent",
        currency=_alternatives("€=euro|$=dollar|£=pond|¥=yen"),
        cents=("", "cent"),
        joint="en",
        symbols=_alternatives(
            "@=apenstaartje;et|.=punt;|-=streepje;|_=laag streepje;underscore|/=schuine streep;slash;|#=hekje"
            "|&=en|+=plus|:=dubbele punt;|%=procent|°=graden|€=euro|$=dollar|==is"
        ),
        hour=("uur", ""),
        zero=("nul",),
        abbreviations=_alternatives(
            "dhr=de heer|mevr=mevrouw|dr=dokter|nr=nummer|tel=telefoon|bv=bijvoorbeeld|enz=enzovoort|"
            "st=sint|min=minuten|kg=kilo|km=kilometer|a.u.b=alstublieft"
        ),
    ),
}  # fmt: skip
