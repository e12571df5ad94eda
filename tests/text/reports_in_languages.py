"""Sentences as radiologists write them, by language; made for these tests, of no patient."""

from __future__ import annotations

SENTENCES: dict[str, list[str]] = {
    "en": [
        "The lungs are clear without focal consolidation.", "No pleural effusion or pneumothorax is seen.",
        "Heart size is normal.", "Cardiomediastinal silhouette is within normal limits.",
        "Mild bibasilar atelectasis.", "Small left pleural effusion, unchanged.",
        "The endotracheal tube terminates 4 cm above the carina.", "Right internal jugular line tip in the SVC.",
        "Moderate cardiomegaly with pulmonary vascular congestion.", "No acute osseous abnormality.",
        "Stable appearance of the chest compared to the prior exam.", "New opacity in the right lower lobe, concerning for pneumonia.",
        "Low lung volumes accentuate the bronchovascular markings.", "No evidence of free air below the diaphragm.",
        "Interval removal of the chest tube.", "Degenerative changes of the thoracic spine.",
        "Calcified granuloma in the left upper lobe.", "Pulmonary edema has improved.", "There is no pneumomediastinum.",
        "IMPRESSION: No acute cardiopulmonary process.", "Hyperinflated lungs consistent with COPD.", "Normal chest radiograph.",
    ],
    "de": [
        "Kein Pneumothorax, kein Pleuraerguss.", "Herz normal groß.", "Das Herz ist linksverbreitert.",
        "Zwerchfellkuppen glatt begrenzt, Randwinkel frei.", "Keine umschriebenen Infiltrate.", "Kleiner Pleuraerguss rechts.",
        "ZVK von rechts jugulär mit Spitze in Projektion auf die V. cava superior.", "Zeichen der pulmonalvenösen Stauung.",
        "Mediastinum mittelständig und nicht verbreitert.", "Im Vergleich zur Voraufnahme rückläufige Verschattung links basal.",
        "Kein Nachweis einer Raumforderung.", "Beidseits regelrechte Belüftung der Lungen.", "Altersentsprechende degenerative Veränderungen der BWS.",
        "Dystelektasen im linken Unterfeld.", "Beurteilung: Kein Anhalt für eine Pneumonie.", "Röntgen Thorax in zwei Ebenen vom heutigen Tag.",
        "Trachea mittelständig, Hili schlank.", "Verdacht auf beginnendes Infiltrat im rechten Oberlappen.", "Tubus regelrecht, Magensonde nicht vollständig abgebildet.",
        "Zunehmender Erguss beidseits.", "Keine frischen Frakturen der Rippen.", "Unauffälliger Befund.",
    ],
    "es": [
        "No se observa derrame pleural ni neumotórax.", "Silueta cardíaca de tamaño normal.", "Campos pulmonares sin alteraciones significativas.",
        "Condensación en el lóbulo inferior derecho.", "Senos costofrénicos libres.", "Cardiomegalia leve.",
        "Estructuras óseas sin lesiones agudas.", "Pinzamiento del seno costofrénico izquierdo.", "Aumento de la trama broncovascular.",
        "Catéter venoso central con extremo en vena cava superior.", "Hilios de morfología conservada.", "Mediastino centrado.",
        "Impresión diagnóstica: neumonía basal izquierda.", "SIN HALLAZGOS PATOLOGICOS AGUDOS.", "Nódulo calcificado en vértice derecho.",
        "Elevación del hemidiafragma derecho.", "Respecto al estudio previo, mejoría del infiltrado.", "Paciente con disnea y tos de tres días.",
        "Atelectasia laminar en la base izquierda.", "Aorta elongada y calcificada.", "No hay signos de edema pulmonar.", "Radiografía de tórax sin hallazgos.",
    ],
    "fr": [
        "Pas d'épanchement pleural ni de pneumothorax.", "Silhouette cardiaque de taille normale.", "Absence de foyer parenchymateux évolutif.",
        "Opacité du lobe inférieur droit.", "Les culs-de-sac pleuraux sont libres.", "Cardiomégalie modérée avec surcharge vasculaire.",
        "Pas de lésion osseuse décelable.", "Épanchement pleural gauche de faible abondance.", "Sonde d'intubation en place.",
        "Le médiastin est centré, les hiles sont normaux.", "Conclusion : radiographie thoracique normale.", "Cathéter central dont l'extrémité se projette sur la veine cave supérieure.",
        "Syndrome interstitiel diffus bilatéral.", "Comparativement au cliché précédent, régression de la condensation.", "Aorte déroulée et calcifiée.",
        "Surélévation de la coupole diaphragmatique droite.", "Patient adressé pour dyspnée et fièvre.", "Atélectasie en bande de la base gauche.",
        "L'index cardiothoracique est augmenté.", "Bonne expansion des deux poumons.", "Aucune anomalie pleuroparenchymateuse.", "Nodule du sommet droit, à contrôler.",
    ],
    "pt": [
        "Não há derrame pleural nem pneumotórax.", "Área cardíaca de dimensões normais.", "Pulmões com transparência preservada.",
        "Consolidação no lobo inferior direito.", "Seios costofrênicos livres.", "Cardiomegalia discreta.", "Arcabouço ósseo sem alterações significativas.",
        "Velamento do seio costofrênico esquerdo.", "Hilos pulmonares de aspecto habitual.", "Cateter venoso central com extremidade na veia cava superior.",
        "Impressão: pneumonia na base esquerda.", "SEM ALTERACOES PLEUROPULMONARES AGUDAS.", "Nódulo calcificado no ápice direito.", "Elevação da cúpula diafragmática direita.",
        "Em relação ao exame anterior, houve redução da opacidade.", "Paciente com dispneia e tosse há três dias.", "Atelectasia laminar na base esquerda.",
        "Aorta alongada e ateromatosa.", "Não se observam sinais de congestão.", "Radiografia de tórax dentro dos limites da normalidade.", "Mediastino centrado, sem alargamento.", "Trama intersticial acentuada bilateralmente.",
    ],
    "it": [
        "Non versamento pleurico né pneumotorace.", "Ombra cardiaca nei limiti di norma.", "Non lesioni pleuroparenchimali a focolaio in atto.", "Addensamento parenchimale al lobo inferiore destro.",
        "Seni costofrenici liberi.", "Cardiomegalia di grado moderato.", "Non si apprezzano fratture costali.", "Versamento pleurico sinistro di modesta entità.", "Ili nella norma.",
        "Catetere venoso centrale con estremo distale in vena cava superiore.", "Conclusioni: esame nei limiti.", "Accentuazione diffusa della trama interstiziale.", "Nodulo calcifico all'apice destro.",
        "Sopraelevazione dell'emidiaframma destro.", "Rispetto al precedente controllo, riduzione dell'addensamento.", "Paziente con dispnea e tosse da tre giorni.", "Stria atelettasica alla base sinistra.",
        "Aorta allungata e calcifica.", "Mediastino in asse.", "L'ombra cardiaca è ingrandita.", "Segni di congestione del piccolo circolo.", "Reperto invariato.",
    ],
    "nl": [
        "Geen pleuravocht, geen pneumothorax.", "Het hart is niet vergroot.", "De longen zijn goed ontplooid en helder.", "Infiltraat in de rechter onderkwab.",
        "Slank mediastinum, normale hili.", "Conclusie: geen aanwijzingen voor een pneumonie.", "Toename van het vocht links.", "Diafragmakoepels glad begrensd, sinussen vrij.",
        "Centraal veneuze lijn met tip in de vena cava superior.", "Geen ossale afwijkingen.", "Lichte stuwing ten opzichte van het vorige onderzoek.", "Bekende elongatie van de aorta.",
        "Consolidatie in de middenkwab, passend bij een pneumonie.", "Atelectase links basaal.", "Geen tekenen van decompensatie.", "X-thorax staand in twee richtingen.", "Endotracheale tube in goede positie.",
        "Patiënt met koorts en hoesten sinds drie dagen.", "Kleine nodus in de linkerbovenkwab.", "Ongewijzigd beeld.", "Degeneratieve veranderingen van de wervelkolom.", "Normale thoraxfoto.",
    ],
    "zh": [
        "两肺纹理清晰，未见明显实变影。", "心影大小形态正常。", "双侧肋膈角锐利。", "右下肺见斑片状高密度影。", "左侧胸腔少量积液。", "未见气胸征象。", "纵隔居中，气管无偏移。", "主动脉迂曲、钙化。",
        "诊断意见：右肺上叶炎症。", "双膈面光整。", "所见骨质未见异常。", "与前片相比，病灶较前吸收。", "气管插管在位，尖端位于隆突上方约3cm。", "两肺间质性改变。", "心影增大，请结合临床。",
        "左肺上叶结节，建议CT进一步检查。", "胸部正位片未见异常。", "患者咳嗽、发热三天。", "雙側肺野清晰，未見明顯浸潤。", "右側肋膜積液，較前增加。", "心臟擴大。", "中心静脉导管末端位于上腔静脉。",
    ],
    "ja": [
        "両側肺野に明らかな異常陰影を認めません。", "心拡大なし。", "右下肺野に浸潤影を認めます。", "左胸水貯留あり。", "気胸は認められない。", "縦隔の偏位なし。", "肋骨横隔膜角は鋭です。", "大動脈の石灰化を認める。",
        "診断：右肺炎の疑い。", "前回と比較して陰影は改善しています。", "中心静脈カテーテルの先端は上大静脈内にあります。", "両肺に網状影が見られます。", "左上葉に結節影があり、CTでの精査を勧めます。", "肺うっ血の所見です。",
        "骨折は指摘できません。", "胸部単純X線写真では異常を認めない。", "気管挿管チューブの先端位置は適切です。", "軽度の側弯症。", "心胸郭比は52%と拡大している。", "胸膜肥厚が疑われます。", "著変なし。", "患者は発熱と咳嗽を訴えている。",
    ],
}  # fmt: skip

UNKNOWN: dict[str, list[str]] = {
    "sv": [
        "Ingen pleuravätska och ingen pneumothorax.", "Hjärtat är normalstort.", "Inga infiltrat i lungorna.", "Höger lunga är väl expanderad.", "Utlåtande: ingen säker förändring sedan föregående undersökning.",
    ],
    "pl": ["Płuca bez zmian ogniskowych.", "Sylwetka serca w normie.", "Płyn w prawej jamie opłucnowej.", "Kąty przeponowo-żebrowe wolne."],
    "ro": ["Fără revărsat pleural sau pneumotorax.", "Cordul este de dimensiuni normale.", "Opacitate la nivelul lobului inferior drept.", "Sinusurile costodiafragmatice sunt libere."],
    "ca": ["No s'observa vessament pleural ni pneumotòrax.", "Silueta cardíaca dins dels límits de la normalitat.", "Augment de densitat al lòbul inferior dret.", "Sense alteracions òssies agudes."],
    "tr": ["Her iki akciğerde aktif infiltrasyon saptanmadı.", "Kalp boyutu normaldir.", "Sağ alt lobda konsolidasyon izlendi.", "Kostofrenik sinüsler açıktır."],
    "ru": ["Лёгкие без очаговых и инфильтративных изменений.", "Сердце не расширено.", "Правосторонний гидроторакс.", "Синусы свободны."],
    "ko": ["양측 폐야에 활동성 병변은 없습니다.", "심장 크기는 정상입니다.", "우측 흉수가 소량 보입니다.", "기흉은 보이지 않습니다."],
    "el": ["Δεν παρατηρείται πλευριτική συλλογή.", "Η καρδιά είναι φυσιολογικού μεγέθους.", "Πύκνωση στον δεξιό κάτω λοβό."],
    "ar": ["لا يوجد انصباب جنبي أو استرواح صدري.", "حجم القلب طبيعي.", "عتامة في الفص السفلي الأيمن."],
}  # fmt: skip
"""Of languages without a table."""
